"""The Node.js example, and the JavaScript in the README, against a real rkvisord."""

import hashlib
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.places import ROOT
from harness.rkvisord import PATIENCE_S, Rkvisord

pytestmark = pytest.mark.api
EXAMPLE = ROOT / "docs" / "clients" / "node"
#: npm's words for a registry that cannot be reached.
NO_NETWORK = ("ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ECONNRESET", "ETIMEDOUT", "ENETUNREACH", "ENOTCACHED")


@pytest.fixture(scope="session")
def folder() -> Path:
    """A folder with the example and its package, installed once for each lock file; skips where that cannot be."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("node and npm are not installed")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    lock = (EXAMPLE / "package-lock.json").read_bytes()
    target = ROOT / ".cache" / "node" / hashlib.sha256(lock + version.encode()).hexdigest()[:16]
    if not (target / "installed").exists():
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(EXAMPLE / name, target)
        words = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]  # the package comes compiled
        done = subprocess.run(words, cwd=target, capture_output=True, text=True, timeout=PATIENCE_S * 3)
        if done.returncode != 0 and any(word in done.stderr for word in NO_NETWORK):
            pytest.skip(f"npm cannot reach its registry: {done.stderr[-300:]}")
        assert done.returncode == 0, done.stderr
        (target / "installed").touch()
    return target


@pytest.fixture(scope="module")
def server() -> Iterator[Rkvisord]:
    with Rkvisord(listen='clients = ["ipc://run/client.sock", "tcp://127.0.0.1:*"]') as running:
        yield running


def node(folder: Path, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    words = ["node", script, *arguments]
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=PATIENCE_S)


def test_the_example_streams_the_whole_answer(folder: Path, server: Rkvisord) -> None:
    shutil.copy(EXAMPLE / "stream.mjs", folder)
    with server.client() as client:
        expected = client.call("rkllm.run", {"model": "demo", "prompt": "Tell me a story"})
    done = node(folder, "stream.mjs", server.endpoint, "demo", "Tell me a story")
    assert done.returncode == 0, done.stderr
    text, _, summary = done.stdout.rstrip("\n").rpartition("\n")
    assert text == expected["text"]
    count, reason = len(expected["token_ids"]), expected["finish_reason"]
    assert re.fullmatch(rf"\({count} tokens from demo:[01], finish_reason {reason}\)", summary)


def test_the_example_says_what_is_wrong_and_fails(folder: Path, server: Rkvisord) -> None:
    shutil.copy(EXAMPLE / "stream.mjs", folder)
    done = node(folder, "stream.mjs", server.endpoint, "no-such-model", "Hello")
    assert done.returncode == 1
    assert "INVALID_PARAMS: cannot run model 'no-such-model'" in done.stderr


def test_the_javascript_in_the_readme_streams_an_answer(folder: Path, server: Rkvisord) -> None:
    [code] = re.findall(r"```js\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    (folder / "readme.mjs").write_text(code.replace("tcp://127.0.0.1:5570", server.endpoint))
    with server.client() as client:
        expected = client.call("rkllm.run", {"model": "demo", "prompt": "Tell me a story", "max_new_tokens": 40})
    done = node(folder, "readme.mjs")
    assert (done.returncode, done.stdout) == (0, expected["text"]), done.stderr
