"""The Python that the documentation shows, against a real rkvisord: what is printed there must be what comes."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.places import ROOT
from harness.rkvisord import PATIENCE_S, Rkvisord

pytestmark = pytest.mark.api
ENDPOINTS = re.compile(r"tcp://127\.0\.0\.1:5570|ipc://run/client\.sock")


@pytest.fixture(scope="module")
def server() -> Iterator[Rkvisord]:
    with Rkvisord() as running:
        yield running


def blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)


def run(code: str, folder: Path) -> str:
    """The output of a program of its own; it must succeed without a word on stderr."""
    words = [sys.executable, "-P", "-W", "error", "-c", code]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=PATIENCE_S)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("page", "at"),
    [
        (page, at)
        for page in ("README.md", "docs/reference/python-client.md", "docs/howto/clients.md")
        for at in range(len(blocks(page)))
    ],
)
def test_an_example_prints_what_came(page: str, at: int, server: Rkvisord, tmp_path: Path) -> None:
    code = blocks(page)[at]
    assert ENDPOINTS.search(code)
    if "prompt" not in code or "session" in code:
        assert run(ENDPOINTS.sub(server.endpoint, code), tmp_path).strip()
        return
    prompt = "Tell me a story" if "story" in code else "Hello"
    limit = 40 if "40" in code else 20
    with server.client() as client:
        expected = client.call("rkllm.run", {"model": "demo", "prompt": prompt, "max_new_tokens": limit})
    code = ENDPOINTS.sub(server.endpoint, code)
    if "REQ" in code:  # such a program ends without closing its socket, as a script may
        code += "\nsocket.close()\nsocket.context.term()\n"
    assert expected["text"] in run(code, tmp_path)


def plain(*arguments: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-P", "-W", "error", str(ROOT / "docs" / "clients" / "plain_pyzmq.py"), *arguments]
    return subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE_S)


def test_the_plain_client_streams_the_whole_answer(server: Rkvisord) -> None:
    with server.client() as client:
        expected = client.call("rkllm.run", {"model": "demo", "prompt": "Tell me a story"})
    done = plain(server.endpoint, "demo", "Tell me a story")
    assert (done.returncode, done.stderr) == (0, "")
    text, _, summary = done.stdout.rstrip("\n").rpartition("\n")
    assert text == expected["text"]
    assert summary.startswith(f"({len(expected['token_ids'])} tokens from demo:")


def test_the_plain_client_says_what_is_wrong_and_fails(server: Rkvisord) -> None:
    done = plain(server.endpoint, "no-such-model")
    assert done.returncode == 1
    assert done.stderr.startswith("INVALID_PARAMS: cannot run model 'no-such-model'")


def test_the_commands_in_the_readme_do_what_it_says(tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    [script] = re.findall(r"(?m)^    mkdir demo.*\n(?:    .*\n)+", readme)
    script = script.replace(".venv/bin/", f"{Path(sys.executable).parent}/")
    script = script.replace("cp etc/rkvisor.toml demo/", "sed s/:5570/:*/ etc/rkvisor.toml > demo/rkvisor.toml")
    waiting = "until rkvisorctl -c demo/rkvisor.toml status; do kill -0 $! || exit 9; sleep 0.1; done"
    script = script.replace("sleep 3", waiting.replace("rkvisorctl", f"{Path(sys.executable).parent}/rkvisorctl"))
    (tmp_path / "etc").symlink_to(ROOT / "etc")
    words = ["bash", "-e", "-c", f"{script}wait\n"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    *_, answer, first, second, farewell = done.stdout.splitlines()
    assert answer.startswith(" ")
    assert [line.split()[:2] for line in (first, second)] == [["demo:0", "RUNNING"], ["demo:1", "RUNNING"]]
    assert farewell == "Shut down"
