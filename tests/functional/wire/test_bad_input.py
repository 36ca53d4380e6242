"""What rkvisord does with models, libraries, directories and configurations that are no good."""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.rkvisord import PATIENCE_S, Rkvisord, RpcError
from harness.running import run

pytestmark = pytest.mark.validation

DEMO = '[models.demo]\nruntime = "sim"\npath = "builtin:tiny"\n'
#: Exports what every release does and names a version that none has: the only way to tell its family is to ask.
STRANGER = """
const char banner[] = "RKLLM SDK (version: 9.9.9 | test)";
int rkllm_createDefaultParam(void) { return banner[0]; }
int rkllm_init(void) { return 0; }
int rkllm_run(void) { return 0; }
int rkllm_abort(void) { return 0; }
int rkllm_destroy(void) { return 0; }
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="rkv") as name:
        yield Path(name)


def daemon(*words: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """A rkvisord that is expected to end by itself."""
    command = [sys.executable, "-P", "-m", "rkvisor.supervisor.daemon", *map(str, words)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=PATIENCE_S)


def refusal(*words: str | Path, cwd: Path | None = None) -> str:
    """What a rkvisord says that cannot start: one line, without a traceback."""
    ended = daemon(*words, cwd=cwd)
    assert ended.returncode == 2, ended.stderr
    assert "Traceback" not in ended.stderr
    (line,) = [line for line in ended.stderr.splitlines() if line.startswith("rkvisord: ")]
    assert line.startswith("rkvisord: cannot ")
    return line


def write(folder: Path, text: str) -> Path:
    path = folder / "rkvisor.toml"
    path.write_text(text)
    return path


# Models that cannot be loaded.


def stranger(folder: Path) -> str:
    (folder / "stranger.c").write_text(STRANGER)
    library = folder / "librkllmrt.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, folder / "stranger.c"], check=True)
    return f'runtime = "rknpu"\npath = "{folder}/model.rkllm"\nlibrary = "{library}"\n'


def model(folder: Path, name: str, content: bytes, runtime: str = "sim") -> str:
    (folder / name).write_bytes(content)
    return f'runtime = "{runtime}"\npath = "{folder / name}"\n'


BROKEN: list[tuple[str, Callable[[Path], str], list[str]]] = [
    ("a file that is missing", lambda f: f'runtime = "sim"\npath = "{f}/none.toml"\n', ["none.toml", "No such file"]),
    ("a folder", lambda f: f'runtime = "sim"\npath = "{f}"\n', ["Is a directory"]),
    ("a builtin that is none", lambda f: 'runtime = "sim"\npath = "builtin:gpt5"\n', ["gpt5"]),
    ("a GGUF file", lambda f: model(f, "m.gguf", b"GGUF\3\0\0\0"), ["m.gguf", "GGUF", 'runtime = "llama"']),
    ("no GGUF file", lambda f: model(f, "m.gguf", b"<html>", "llama"), ["m.gguf", "no GGUF file", "<htm"]),
    ("no TOML", lambda f: model(f, "m.toml", b"\xff\xfe"), ["m.toml", "no model of the simulator"]),
    ("an unknown version", stranger, ["librkllmrt.so", "9.9.9", "abi"]),
    ("no library", lambda f: f'{model(f, "m.rkllm", b"x", "rknpu")}library = "{f}/no.so"\n', ["no.so", "'library'"]),
    ("a library of another kind", lambda f: f'runtime = "sim"\npath = "builtin:tiny"\nlibrary = "{f}"\n', ["library"]),
    ("a family that no simulator has", lambda f: DEMO.partition("\n")[2] + 'library = "f9"\n', ["f9"]),
    (
        "a parameter of another family",
        lambda f: DEMO.partition("\n")[2] + 'library = "f4"\nparam = { ignore_eos_token = true }\n',
        ["ignore_eos_token"],
    ),
]


@pytest.fixture(scope="module")
def server() -> Iterator[Rkvisord]:
    """One model that is fine, and each of the broken ones as "broken0", "broken1", …"""
    with tempfile.TemporaryDirectory(prefix="rkv") as name:
        sections = [DEMO]
        for index, (_, section, _) in enumerate(BROKEN):
            place = Path(name) / str(index)
            place.mkdir()
            (place / "model.rkllm").write_bytes(b"x")
            sections.append(f"[models.broken{index}]\n{section(place)}")
        with Rkvisord("\n".join(sections)) as server:
            yield server


@pytest.mark.parametrize(
    ("number", "parts"), [pytest.param(index, row[2], id=row[0]) for index, row in enumerate(BROKEN)]
)
def test_a_model_that_cannot_be_loaded_is_fatal_with_its_reason_and_harms_no_other(
    server: Rkvisord, number: int, parts: list[str]
) -> None:
    def described() -> dict[str, Any]:
        return next(one for one in server.admin_call("admin.processes") if one["group"] == f"broken{number}")

    before = described()
    assert before["statename"] == "FATAL"
    assert [part for part in parts if part not in before["description"]] == []
    with server.client() as client:
        with pytest.raises(RpcError) as caught:
            run(client, model=f"broken{number}", prompt="x")
        error = caught.value.error
        assert (error["code"], error["data"]["name"]) == (-32010, "MODEL_UNAVAILABLE")
        assert [part for part in parts if part not in error["message"]] == [], error["message"]
        assert run(client, prompt="x")["finish_reason"] == "length"
    assert described()["start"] == before["start"], "it was not tried again"


def test_a_model_that_was_put_right_runs_when_the_operator_starts_it(folder: Path) -> None:
    with Rkvisord(f'{DEMO}[models.late]\nruntime = "sim"\npath = "{folder}/late.toml"\n') as server:
        assert {worker["name"]: worker["state"] for worker in server.workers()}["late:0"] == "FATAL"
        (folder / "late.toml").write_text('name = "late"\nvocab_size = 1024\ncontext = 512\nembedding_size = 64\n')
        (started,) = server.admin_call("admin.start", {"names": ["late"]})
        assert started["status"] == 80
        with server.client() as client:
            assert run(client, model="late", prompt="x")["finish_reason"] == "length"


# Directories and sockets.


def test_a_second_rkvisord_on_the_same_directories_is_refused_and_the_first_serves_on() -> None:
    with Rkvisord(DEMO) as server:
        line = refusal("-c", server.config)
        assert f"pid {server.pid}" in line
        assert "lock" in line
        assert server.call("system.version")["protocol"]


@pytest.mark.parametrize("shared", ["run_dir", "state_dir"])
def test_one_shared_directory_is_enough_to_be_refused(folder: Path, shared: str) -> None:
    with Rkvisord(DEMO) as server:
        other = "state_dir" if shared == "run_dir" else "run_dir"
        directory = server.folder / shared.removesuffix("_dir")
        text = f'[supervisor]\n{shared} = "{directory}"\n{other} = "mine"\n{DEMO}'
        assert str(directory) in refusal("-c", write(folder, text))
        assert server.call("system.version")["protocol"]


def test_sockets_that_a_killed_rkvisord_left_are_no_hindrance() -> None:
    with Rkvisord(DEMO) as server:
        epoch = server.call("system.version")["epoch"]
        server.kill()
        assert (server.folder / "run" / "client.sock").exists()
        server.start()
        assert server.call("system.version")["epoch"] != epoch


def test_a_port_in_use_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, tempfile.TemporaryDirectory(prefix="rkv") as folder:
        endpoint = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        path = write(Path(folder), f'[listen]\nclients = ["{endpoint}"]\n{DEMO}')
        line = refusal("-c", path)
        assert [part for part in ("listen", "in use", endpoint) if part not in line] == []
        assert not (Path(folder) / "run" / "lock").exists(), "its locks are gone with it"


@pytest.mark.parametrize("line", ['clients = ["{}"]', 'admin = "{}"', 'events = ["{}"]'])
def test_a_file_where_a_socket_is_wanted_is_refused_and_left_alone(folder: Path, line: str) -> None:
    precious = folder / "precious.txt"
    precious.write_text("years of work")
    path = write(folder, f"[listen]\n{line.format('ipc://precious.txt')}\n{DEMO}")
    told = refusal("-c", path)
    assert [part for part in (str(precious), line.split()[0], "not a socket", "another path") if part not in told] == []
    assert refusal("-c", path, "--check-config") == told
    assert precious.read_text() == "years of work"
    (folder / "link").symlink_to(precious)
    assert "symbolic link" in refusal("-c", write(folder, f"[listen]\n{line.format('ipc://link')}\n{DEMO}"))
    assert precious.read_text() == "years of work"


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_a_socket_of_a_program_that_lives_is_refused_and_goes_on_to_answer(folder: Path, kind: int) -> None:
    path = folder / "other.sock"
    with socket.socket(socket.AF_UNIX, kind) as other, socket.socket(socket.AF_UNIX, kind) as caller:
        other.bind(str(path))
        if kind == socket.SOCK_STREAM:
            other.listen()
        for line in ('clients = ["ipc://other.sock"]', 'admin = "ipc://other.sock"', 'events = ["ipc://other.sock"]'):
            told = refusal("-c", write(folder, f"[listen]\n{line}\n{DEMO}"))
            assert [part for part in (str(path), line.split()[0], "answers", "stop") if part not in told] == []
        caller.connect(str(path))


def test_a_dead_socket_where_one_is_wanted_is_replaced() -> None:
    with tempfile.TemporaryDirectory(prefix="rkv") as name:
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(f"{name}/old.sock")
            dead.listen()
        with (
            Rkvisord(DEMO, folder=Path(name), listen='clients = ["ipc://run/client.sock", "ipc://old.sock"]') as server,
            server.client(f"ipc://{name}/old.sock") as client,
        ):
            assert client.call("system.version")["protocol"]


def test_a_directory_that_is_a_file_is_named(folder: Path) -> None:
    (folder / "taken").write_text("")
    for key in ("run_dir", "state_dir"):
        assert "taken" in refusal("-c", write(folder, f'[supervisor]\n{key} = "taken"\n{DEMO}'))


def test_one_folder_under_two_names_is_no_second_rkvisord(folder: Path) -> None:
    (folder / "state").mkdir()
    (folder / "run").symlink_to("state")
    line = refusal("-c", write(folder, DEMO))
    assert [part for part in ("run_dir and state_dir", str(folder / "run")) if part not in line] == []


# Configurations.


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("[models.demo\n", ["line 1"]),
        (DEMO + "worker = 3\n", ["'worker'", "'workers'"]),
        (DEMO + "backoff_initial_s = 9\n", ["backoff_initial_s", "backoff_max_s"]),
        ('[supervisor]\nrun_dir = "' + "x" * 120 + '"\n' + DEMO, ["limit is 107", "run_dir"]),
        ('[listen]\nclients = ["tcp://0.0.0.0:5570"]\n' + DEMO, ["tcp://0.0.0.0:5570", "CURVE"]),
        ("", ["no model"]),
    ],
)
def test_a_bad_configuration_is_refused_by_start_and_check_alike(folder: Path, text: str, parts: list[str]) -> None:
    path = write(folder, text)
    line = refusal("-c", path)
    assert [part for part in (str(path), *parts) if part not in line] == []
    assert refusal("-c", path, "--check-config") == line
    assert list(folder.iterdir()) == [path], "nothing was made"


def test_a_configuration_that_cannot_be_read_is_named(folder: Path) -> None:
    assert str(folder / "none.toml") in refusal("-c", folder / "none.toml")
    assert str(folder) in refusal("-c", folder)
    (folder / "latin.toml").write_bytes(b"# gr\xfc\xdfe\n")
    assert "latin.toml" in refusal("-c", folder / "latin.toml")
    line = refusal(cwd=folder)
    assert [
        part for part in (str(folder / "rkvisor.toml"), "/etc/rkvisor/rkvisor.toml", "-c") if part not in line
    ] == []


def test_check_config_says_yes_and_touches_nothing(folder: Path) -> None:
    path = write(folder, DEMO)
    ended = daemon("-c", path, "--check-config")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert str(path) in ended.stdout
    assert daemon("--check-config", cwd=folder).stdout == ended.stdout
    assert list(folder.iterdir()) == [path]


def test_a_word_that_the_command_does_not_know_is_refused(folder: Path) -> None:
    ended = daemon("-c", write(folder, DEMO), "--chekc-config")
    assert (ended.returncode, "--chekc-config" in ended.stderr) == (2, True)
