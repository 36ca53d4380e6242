"""``rkvisor`` as a user meets it: pipes, exit statuses, a terminal, Ctrl-C."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.fake_server import FakeServer, reply_to
from harness.rkvisord import PATIENCE_S

COMMAND = [sys.executable, "-P", "-m", "rkvisor.client.command"]
STORY = "".join(reply_to("tell me"))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FakeServer]:
    with FakeServer(f"ipc://{tmp_path}/s") as running:
        yield running


def rkvisor(
    *words: str, server: FakeServer | None = None, stdin: str = "", cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RKVISOR_")}
    if server is not None:
        environment["RKVISOR_ENDPOINT"] = server.endpoint
    return subprocess.run(
        [*COMMAND, *words], input=stdin, capture_output=True, text=True, timeout=PATIENCE_S, env=environment, cwd=cwd
    )


class Screen:
    """The command in a terminal of its own."""

    def __init__(self, *words: str, server: FakeServer) -> None:
        self.master, slave = pty.openpty()
        environment = {**os.environ, "RKVISOR_ENDPOINT": server.endpoint, "TERM": "dumb"}
        self.process = subprocess.Popen(
            [*COMMAND, *words], stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True
        )
        os.close(slave)
        self.shown = ""
        self._bytes = b""
        self._seen = 0

    def __enter__(self) -> Screen:
        return self

    def __exit__(self, *exception: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.master)

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def interrupt(self) -> None:
        """What the terminal does on Ctrl-C."""
        self.process.send_signal(signal.SIGINT)

    def wait_for(self, text: str) -> None:
        """Read until *text* was shown, behind what was waited for before."""
        assert self._read_until(text, PATIENCE_S), f"ended or stuck without {text!r}: {self.shown!r}"

    def interrupt_until(self, text: str) -> None:
        """Press Ctrl-C until *text* is shown: CPython's readline misses one that comes while it handles a key."""
        for _ in range(10):
            self.interrupt()
            if self._read_until(text, PATIENCE_S / 10):
                return
        raise AssertionError(f"Ctrl-C did not bring {text!r}: {self.shown!r}")

    def _read_until(self, text: str, timeout_s: float) -> bool:
        until = time.monotonic() + timeout_s
        while text not in self.shown[self._seen :]:
            if not select.select([self.master], [], [], max(0.0, until - time.monotonic()))[0]:
                return False
            try:
                self._bytes += os.read(self.master, 4096)
            except OSError:  # the terminal is gone once the command has ended
                return False
            self.shown = self._bytes.decode(errors="replace")
        self._seen = self.shown.index(text, self._seen) + len(text)
        return True

    def end(self) -> int:
        return self.process.wait(PATIENCE_S)


def test_run_prints_the_answer_and_ends_the_line(server: FakeServer) -> None:
    done = rkvisor("run", "-m", "demo", "tell me", server=server)
    assert (done.returncode, done.stdout, done.stderr) == (0, STORY + "\n", "")
    assert server.wait_for("rkllm.run")["stream"] is True


def test_run_needs_no_model_where_there_is_one(server: FakeServer) -> None:
    assert rkvisor("run", "tell me", server=server).stdout == STORY + "\n"
    assert server.wait_for("rkllm.run")["model"] == "demo"


@pytest.mark.parametrize("words", [["-"], []])
def test_run_reads_the_prompt_from_stdin(server: FakeServer, words: list[str]) -> None:
    assert rkvisor("run", *words, server=server, stdin="tell me\n").stdout == STORY + "\n"
    assert server.wait_for("rkllm.run")["prompt"] == "tell me"


def test_run_json_prints_the_result_as_one_line(server: FakeServer) -> None:
    done = rkvisor("run", "--json", "tell me", server=server)
    (line,) = done.stdout.splitlines()
    assert json.loads(line)["text"] == STORY
    assert "stream" not in server.wait_for("rkllm.run")


def test_run_without_stream_prints_the_answer_at_once(server: FakeServer) -> None:
    assert rkvisor("run", "--no-stream", "tell me", server=server).stdout == STORY + "\n"
    assert "stream" not in server.wait_for("rkllm.run")


def test_the_options_become_params_and_what_is_not_said_is_left_to_the_server(server: FakeServer) -> None:
    words = ["--max-new-tokens", "5", "--temperature", "0.5", "--top-k", "3", "--top-p", "0.8", "--deadline", "1.5"]
    rkvisor("run", *words, "--repeat-penalty", "1.2", "--stop", "a", "--stop", "b", "--thinking", "hi", server=server)
    params = server.wait_for("rkllm.run")
    assert params.pop("request_key")
    assert params == {
        "model": "demo",
        "prompt": "hi",
        "stream": True,
        "max_new_tokens": 5,
        "temperature": 0.5,
        "top_k": 3,
        "top_p": 0.8,
        "repeat_penalty": 1.2,
        "stop": ["a", "b"],
        "enable_thinking": True,
        "deadline_ms": 1500,
    }
    rkvisor("run", "hi", server=server)
    assert set(server.wait_for("rkllm.run", 2)) == {"model", "prompt", "stream", "request_key"}


def test_verbose_tells_on_stderr_how_the_answer_came_about(server: FakeServer) -> None:
    done = rkvisor("run", "-v", "tell me", server=server)
    assert done.stdout == STORY + "\n"
    assert done.stderr == "(6 tokens, worker demo:0, finished by length)\n"


def test_an_error_of_the_server_is_exit_1_with_its_message(server: FakeServer) -> None:
    data = {"name": "QUEUE_FULL", "retry_after_ms": 1500}
    server.errors["rkllm.run"] = {"code": -32004, "message": "cannot queue the request", "data": data}
    done = rkvisor("run", "hi", server=server)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "rkvisor: cannot queue the request (try again in 1.5 s)\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "--temperature", "warm", "hi"], "invalid float value: 'warm'"),
        (["run", "--deadline", "0", "hi"], "'0' is not more than 0 seconds"),
        (["run", "--deadline", "nan", "hi"], "'nan' is no number of seconds"),
        (["run", "-"], "rkvisor: cannot run without a prompt: stdin is empty"),
        (["-s", "nowhere", "run", "hi"], "rkvisor: cannot use the endpoint 'nowhere' of -s"),
        (["run", "-c", "/does/not/exist", "hi"], "rkvisor: cannot read /does/not/exist: No such file or directory"),
        ([], "the following arguments are required: SUBCOMMAND"),
        (["doktor"], "invalid choice: 'doktor'"),
    ],
)
def test_wrong_usage_is_exit_2(words: list[str], message: str, tmp_path: Path) -> None:
    done = rkvisor(*words, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_server_with_several_models_wants_one_named(server: FakeServer) -> None:
    server.models = ["large", "small"]
    done = rkvisor("run", "hi", server=server)
    assert done.returncode == 2
    assert "has 2: large, small; name one with -m MODEL" in done.stderr


def test_no_server_is_exit_3(tmp_path: Path) -> None:
    done = rkvisor("-s", f"ipc://{tmp_path}/none", "run", "-m", "demo", "hi")
    assert done.returncode == 3
    assert done.stderr == f"rkvisor: cannot reach rkvisord at ipc://{tmp_path}/none: no such file or directory\n"
    done = rkvisor("run", "hi", cwd=tmp_path)
    assert done.returncode == 3
    for place in (
        "-s ENDPOINT",
        "$RKVISOR_ENDPOINT",
        "-c FILE",
        f"{tmp_path}/rkvisor.toml",
        "/etc/rkvisor/rkvisor.toml",
    ):
        assert place in done.stderr


def test_the_server_is_found_by_the_configuration_in_the_current_folder(server: FakeServer, tmp_path: Path) -> None:
    (tmp_path / "rkvisor.toml").write_text('[listen]\nclients = ["ipc://s", "tcp://127.0.0.1:1"]\n')
    assert rkvisor("run", "tell me", cwd=tmp_path).stdout == STORY + "\n"


def test_a_reader_that_leaves_early_ends_the_command_without_a_traceback(server: FakeServer) -> None:
    words = [*COMMAND, "-s", server.endpoint, "run", "tell me " * 5000]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(PATIENCE_S) == 1


def test_an_answer_that_breaks_off_has_its_line_ended_too(server: FakeServer) -> None:
    server.hold_after, server.is_sampled = 2, True
    words = [*COMMAND, "-s", server.endpoint, "run", "tell me"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        two = "{0}tell0 {0}me1 ".format(server.epoch[:4])
        assert process.stdout.read(len(two)) == two
        server.stop()
        server.start()
        rest, error = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, rest) == (1, "\n")
    assert "differs at token 0" in error


@pytest.mark.parametrize("words", [["run", "tell me"], ["run", "--json", "tell me"]])
def test_ctrl_c_aborts_the_request_and_is_exit_130(server: FakeServer, words: list[str]) -> None:
    server.hold_after = 2
    with Screen(*words, server=server) as screen:
        server.wait_for("rkllm.run")
        if "--json" not in words:
            screen.wait_for("me1")
        screen.interrupt()
        assert screen.end() == 130
    server.wait_for("rkllm.abort")
    assert "Traceback" not in screen.shown


def test_ctrl_c_while_the_server_does_not_answer_is_exit_130(server: FakeServer) -> None:
    server.deaf = {"model.list"}
    with Screen("run", "hi", server=server) as screen:
        server.wait_for("model.list")
        screen.interrupt()
        assert screen.end() == 130


def test_control_characters_of_a_model_do_not_reach_the_terminal(server: FakeServer) -> None:
    prompt = "\x1b]0;title\x07 \x9b2J \r"
    with Screen("run", prompt, server=server) as screen:
        assert screen.end() == 0
        screen.wait_for("�]0;title�")
    assert "\x1b" not in screen.shown.replace("\x1b[K", "")
    assert rkvisor("run", prompt, server=server).stdout.startswith("\x1b]0;title")


def test_a_prompt_is_asked_for_where_stdin_is_a_terminal(server: FakeServer) -> None:
    with Screen("run", server=server) as screen:
        assert screen.end() == 2
        screen.wait_for("rkvisor: cannot run without a prompt")


def test_chat_asks_line_by_line_until_ctrl_d(server: FakeServer) -> None:
    with Screen("chat", server=server) as screen:
        screen.wait_for("demo at ")
        screen.wait_for("> ")
        screen.type("tell me\n")
        screen.wait_for(STORY)
        screen.wait_for("> ")
        screen.type("\n")
        screen.wait_for("> ")
        screen.type("x\n")
        screen.wait_for("x0 x1 x2")
        screen.wait_for("> ")
        screen.type("\x04")
        assert screen.end() == 0
    assert [params["prompt"] for name, params in server.received if name == "rkllm.run"] == ["tell me", "x"]


def test_ctrl_c_in_a_chat_stops_the_answer_and_not_the_chat(server: FakeServer) -> None:
    server.hold_after = 2
    with Screen("chat", server=server) as screen:
        screen.wait_for("> ")
        screen.type("tell me\n")
        screen.wait_for("me1")
        screen.interrupt()
        screen.wait_for("(stopped)")
        server.wait_for("rkllm.abort")
        server.release()
        screen.wait_for("> ")
        screen.type("x")
        screen.wait_for("x")
        screen.interrupt_until("> ")  # at the prompt it drops what was typed
        screen.type("y\n")
        screen.wait_for("y0 y1 y2")
        screen.wait_for("> ")
        screen.type("\x04")
        assert screen.end() == 0


def test_an_error_ends_the_turn_and_not_the_chat(server: FakeServer) -> None:
    server.errors["rkllm.run"] = {"code": -32004, "message": "cannot queue", "data": {"name": "QUEUE_FULL"}}
    with Screen("chat", server=server) as screen:
        screen.wait_for("> ")
        screen.type("tell me\n")
        screen.wait_for("rkvisor: cannot queue")
        server.errors.clear()
        screen.wait_for("> ")
        screen.type("x\n")
        screen.wait_for("x0 x1 x2")
        screen.wait_for("> ")
        screen.type("\x04")
        assert screen.end() == 0


def test_chat_takes_its_lines_from_a_pipe_too(server: FakeServer) -> None:
    done = rkvisor("chat", server=server, stdin="a\n\nb\n")
    assert (done.returncode, done.stdout) == (0, "a0 a1 a2 \nb0 b1 b2 \n")


def test_a_line_that_is_not_utf_8_is_refused_in_words_and_the_chat_goes_on(server: FakeServer) -> None:
    end = subprocess.run(
        [*COMMAND, "chat"],
        input=b"a\n\xff\nb\n\xe9",
        capture_output=True,
        timeout=PATIENCE_S,
        env={**os.environ, "RKVISOR_ENDPOINT": server.endpoint},
    )
    assert end.stderr.decode().splitlines() == ["rkvisor: cannot ask: the line is not UTF-8"] * 2
    assert (end.returncode, end.stdout) == (0, b"a0 a1 a2 \nb0 b1 b2 \n")


def test_a_chat_without_a_server_does_not_begin(tmp_path: Path) -> None:
    assert rkvisor("-s", f"ipc://{tmp_path}/none", "chat", "-m", "demo").returncode == 3


@pytest.mark.resilience
def test_an_answer_on_the_terminal_survives_a_restart_of_the_server(server: FakeServer) -> None:
    server.hold_after = 2
    with Screen("run", "tell me", server=server) as screen:
        screen.wait_for("me1")
        server.stop()
        server.hold_after = None
        server.start()
        assert screen.end() == 0
        screen.wait_for("tell2 me3 tell4 me5")
    assert screen.shown.strip() == STORY.strip()
