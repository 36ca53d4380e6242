"""The configuration: every mistake is answered with the key it is in and the way out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rkvisor.protocol.limits import MAX_SOCKET_PATH_BYTES
from rkvisor.supervisor.config import (
    Config,
    ConfigError,
    LimitsSection,
    ListenSection,
    ModelSection,
    SupervisorSection,
    check_files,
    parse,
    worker_endpoint,
)

FILE = Path("/srv/rkv/rkvisor.toml")
MODEL = '[models.demo]\nruntime = "sim"\npath = "builtin:tiny"\n'
OTHER = MODEL.replace("demo", "other")


def read(text: str) -> Config:
    return parse(text, FILE)


def refusal(text: str, file: Path = FILE) -> str:
    """The message that *text* is refused with, without the file's name."""
    with pytest.raises(ConfigError) as caught:
        parse(text, file)
    message = str(caught.value)
    assert message.startswith(("cannot use ", "cannot parse "))
    assert str(file) in message
    return message.replace(str(file), "FILE")


def test_the_smallest_configuration_gets_the_defaults_of_the_design() -> None:
    config = read(MODEL)
    demo = config.models["demo"]
    assert (demo.workers, demo.spares, demo.standby, demo.startsecs, demo.startretries) == (1, 1, 0, 1.0, 3)
    assert (demo.backoff_initial_s, demo.backoff_factor, demo.backoff_max_s, demo.backoff_jitter) == (0.1, 2, 5, 0.1)
    assert (demo.faults, demo.force_tokens, demo.token_timeout_s, demo.autorestart) == (False, True, 10.0, "true")
    supervisor = config.supervisor
    assert (supervisor.answer_ttl_s, supervisor.poison_ttl_s, supervisor.fault_window_s) == (300, 3600, 2)


def test_relative_paths_are_relative_to_the_files_folder_those_inside_ipc_too() -> None:
    config = read(
        '[supervisor]\nrun_dir = "r"\nstate_dir = "/var/s"\n'
        '[listen]\nclients = ["ipc://r/c.sock", "ipc:///tmp/x.sock", "tcp://127.0.0.1:5570"]\nadmin = "ipc://r/a.sock"\n'
        '[models.demo]\nruntime = "sim"\npath = "models/m.toml"\nlibrary = "lib/x.so"\n'
        '[models.other]\nruntime = "sim"\npath = "/opt/m.toml"\nlibrary = "f4"\n'
        '[models.third]\nruntime = "sim"\npath = "builtin:tiny"\n'
    )
    assert (config.supervisor.run_dir, config.supervisor.state_dir) == ("/srv/rkv/r", "/var/s")
    assert config.listen.clients == ["ipc:///srv/rkv/r/c.sock", "ipc:///tmp/x.sock", "tcp://127.0.0.1:5570"]
    assert config.listen.admin == "ipc:///srv/rkv/r/a.sock"
    demo, other, third = (config.models[name] for name in ("demo", "other", "third"))
    assert (demo.path, demo.library) == ("/srv/rkv/models/m.toml", "/srv/rkv/lib/x.so")
    assert (other.path, other.library, third.path) == ("/opt/m.toml", "f4", "builtin:tiny")
    assert worker_endpoint(config) == "ipc:///srv/rkv/r/private/worker.sock"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        # What is no TOML at all.
        ("[models.demo\n", ["line 1", "column"]),
        ("a = 1\na = 2\n", ["line 2"]),
        # Keys and sections that do not exist.
        ("[modles.demo]\n", ["'modles'", "'models'"]),
        ("[zzz]\n", ["'zzz'", "supervisor, listen, limits, diagnostics, memory, models"]),
        ("workers = 2\n" + MODEL, ["'workers'", "a section"]),
        (MODEL + "worker = 2\n", ["'worker'", "[models.demo]", "'workers'"]),
        (MODEL + "qqqqqq = 2\n", ["'qqqqqq'", "[models.demo]", "known: runtime, path"]),
        ("[supervisor]\nrundir = 'x'\n" + MODEL, ["'rundir'", "[supervisor]", "'run_dir'"]),
        ("[listen]\nclient = []\n" + MODEL, ["'client'", "[listen]", "'clients'"]),
        ("[limits]\ninflight = 1\n" + MODEL, ["'inflight'", "[limits]", "'in_flight'"]),
        # Values of the wrong kind or size.
        (MODEL + "workers = 0\n", ["[models.demo]", "workers", ">= 1"]),
        (MODEL + "workers = 257\n", ["[models.demo]", "workers", "<= 256"]),
        (MODEL + "workers = '2'\n", ["[models.demo]", "workers", "int", "str"]),
        (MODEL + "startsecs = -1\n", ["[models.demo]", "startsecs", ">= 0"]),
        (MODEL + "startsecs = nan\n", ["[models.demo]", "startsecs"]),
        (MODEL + "backoff_max_s = inf\n", ["[models.demo]", "backoff_max_s"]),
        (
            MODEL + "autorestart = 'maybe'\n",
            ["[models.demo]", "autorestart", "maybe", "known: true, false, unexpected"],
        ),
        (MODEL + "autorestart = 5\n", ["[models.demo]", "autorestart", "int", "known: true, false, unexpected"]),
        (MODEL + "degraded_mode = 'x'\n", ["[models.demo]", "degraded_mode", "known: fallback, refuse, announce"]),
        (MODEL + "param = { top_k = 1, temperature = 'hot' }\n", ["[models.demo]", "param: temperature: ", "`str`"]),
        (MODEL + "param = { temprature = 1 }\n", ["[models.demo]", "'temprature'", "a key of param", "'temperature'"]),
        (MODEL + "param = { qqqq = 1 }\n", ["[models.demo]", "'qqqq'", "known: max_context_len, "]),
        (MODEL + "param = { temperature = nan }\n", ["[models.demo]", "param", "temperature", "finite"]),
        (MODEL.replace('"sim"', '"cuda"'), ["[models.demo]", "runtime", "cuda", "known: sim, llama, rknpu"]),
        (MODEL + "abi = 'F9'\n", ["[models.demo]", "abi", "F9", "known: F1, F2, F3, F4, F5"]),
        ('[models.demo]\npath = "x"\n', ["[models.demo]", "runtime"]),
        ('[models.demo]\nruntime = "sim"\n', ["[models.demo]", "path"]),
        ('[models.demo]\nruntime = "sim"\npath = ""\n', ["[models.demo]", "path", "length >= 1"]),
        ("[limits]\nin_flight = 0\n" + MODEL, ["[limits]", "in_flight", ">= 1"]),
        ("[limits]\nmessage_bytes = 100\n" + MODEL, ["[limits]", "message_bytes", ">= 4096"]),
        ("[supervisor]\nlog_level = 'loud'\n" + MODEL, ["[supervisor]", "log_level", "known: trace, debug, info"]),
        ("listen = 5\n" + MODEL, ["[listen]", "must be a table", "int"]),
        ("[models]\ndemo = 5\n", ["[models.demo]", "must be a table", "int"]),
        ("models = []\n", ["no model", "[models.demo]"]),
        ("", ["no model", "[models.demo]"]),
        ("[listen]\n", ["no model", "[models.demo]"]),
        # Contradictions.
        ('[models.demo]\nruntime = "llama"\npath = "m.gguf"\nfaults = true\n', ["[models.demo]", "faults", '"sim"']),
        (
            '[models.demo]\nruntime = "llama"\npath = "builtin:tiny"\n',
            ["[models.demo]", "path", "builtin:tiny", '"sim"'],
        ),
        (MODEL + "fallback = 'demo'\n", ["[models.demo]", "fallback", "another configured model"]),
        (MODEL + "fallback = 'none'\n", ["[models.demo]", "fallback", "another configured model"]),
        (MODEL + "backoff_initial_s = 6\n", ["[models.demo]", "backoff_initial_s", "backoff_max_s"]),
        (MODEL + "depends_on = ['othre']\n" + OTHER, ["[models.demo]", "depends_on", "'othre'", "'other'"]),
        (MODEL + "depends_on = ['demo']\n", ["depends_on", "circle"]),
        (MODEL + "depends_on = ['other']\n" + OTHER + "depends_on = ['demo']\n", ["depends_on", "circle"]),
        # Names.
        (MODEL.replace("demo", '"a b"'), ["[models.a b]", "name", "letters"]),
        (MODEL.replace("demo", '""'), ["[models.]", "name"]),
        (MODEL.replace("demo", "x" * 65), ["name", "1 to 64"]),
        (MODEL.replace("demo", "all"), ["[models.all]", "rkvisorctl", "another name"]),
        # Endpoints.
        ("[listen]\nclients = []\n" + MODEL, ["[listen]", "clients", "at least one"]),
        ("[listen]\nadmin = 'tcp://127.0.0.1:1'\n" + MODEL, ["[listen]", "admin", "ipc://"]),
        ("[listen]\nclients = ['udp://x']\n" + MODEL, ["[listen]", "udp://x", "ipc:// or tcp://"]),
        ("[listen]\nclients = ['ipc://']\n" + MODEL, ["[listen]", "ipc://", "a socket's path"]),
        ("[listen]\nclients = ['tcp://127.0.0.1:70000']\n" + MODEL, ["[listen]", "70000", "65535"]),
        ("[listen]\nclients = ['tcp://127.0.0.1']\n" + MODEL, ["[listen]", "lacks a port", "tcp://127.0.0.1:PORT"]),
        ("[listen]\nclients = ['tcp://localhost:']\n" + MODEL, ["[listen]", "lacks a port", "tcp://localhost:PORT"]),
        ("[listen]\nclients = ['tcp://[::1]']\n" + MODEL, ["[listen]", "lacks a port", "tcp://[::1]:PORT"]),
        ("[listen]\nclients = ['tcp://[::1]:http']\n" + MODEL, ["[listen]", "a number from 1 to 65535"]),
        ("[listen]\nclients = ['tcp://127.0.0.1:" + "9" * 5000 + "']\n" + MODEL, ["a number from 1 to 65535"]),
        ("[listen]\nclients = ['tcp://192.168.0.1']\n" + MODEL, ["[listen]", "loopback only"]),
        ("[listen]\nclients = ['tcp://*:5570']\n" + MODEL, ["[listen]", "tcp://*:5570", "CURVE"]),
        ("[listen]\nclients = ['tcp://192.168.0.1:5570']\n" + MODEL, ["[listen]", "192.168.0.1", "CURVE"]),
        ("[listen]\nclients = ['ipc://a.sock', 'ipc://a.sock']\n" + MODEL, ["[listen]", "a.sock", "twice"]),
        ("[listen]\nclients = ['ipc://a.sock', 'ipc://x/../a.sock']\n" + MODEL, ["[listen]", "a.sock", "twice"]),
        ("[listen]\nclients = ['ipc://run/private/admin.sock']\n" + MODEL, ["[listen]", "admin.sock", "twice"]),
        ("[listen]\nclients = ['ipc://run/private/worker.sock']\n" + MODEL, ["[listen]", "worker.sock", "twice"]),
        # Directories.
        ('[supervisor]\nrun_dir = "d"\nstate_dir = "d"\n' + MODEL, ["run_dir and state_dir", "/srv/rkv/d", "its own"]),
        ('[supervisor]\nrun_dir = "state/../state/"\n' + MODEL, ["run_dir and state_dir"]),
        # What no file system takes.
        ('[supervisor]\nrun_dir = "a\\u0000b"\n' + MODEL, ["[supervisor]", "run_dir", "U+0000"]),
        ('[supervisor]\nstate_dir = "a\\u0000b"\n' + MODEL, ["[supervisor]", "state_dir", "U+0000"]),
        ('[listen]\nclients = ["ipc://a\\u0000b"]\n' + MODEL, ["[listen]", "U+0000"]),
        ('[models.demo]\nruntime = "sim"\npath = "a\\u0000b"\n', ["[models.demo]", "path", "U+0000"]),
        (MODEL + 'library = "a/\\u0000b"\n', ["[models.demo]", "library", "U+0000"]),
    ],
)
def test_a_mistake_is_answered_with_its_key_and_the_way_out(text: str, parts: list[str]) -> None:
    message = refusal(text)
    assert [part for part in parts if part not in message] == [], message


def folder_for(endpoint_bytes: int, tail: str) -> Path:
    """A folder in which the socket *tail* has a path of so many bytes."""
    return Path("/" + "d" * (endpoint_bytes - len(tail) - 2))


@pytest.mark.parametrize("tail", ["run/private/worker.sock", "run/private/admin.sock"])
def test_a_socket_path_may_have_107_bytes_and_not_one_more(tail: str) -> None:
    assert MAX_SOCKET_PATH_BYTES == 107
    if "admin" in tail:
        listen = '[listen]\nclients = ["ipc:///tmp/c"]\nevents = []\n[supervisor]\nrun_dir = "/tmp/r"\n'
    else:
        listen = '[listen]\nclients = ["ipc:///tmp/c"]\nevents = []\nadmin = "ipc:///tmp/a"\n'
    parse(listen + MODEL, folder_for(107, tail) / "rkvisor.toml")
    message = refusal(listen + MODEL, folder_for(108, tail) / "rkvisor.toml")
    assert [part for part in (tail, "108 bytes", "limit is 107", "shorter path") if part not in message] == []


def test_socket_paths_are_counted_in_bytes() -> None:
    name = "é" * 40
    text = f'[listen]\nclients = ["ipc:///tmp/{name}/{name}"]\n'
    assert "166 bytes" in refusal(text + MODEL)


def test_a_folder_whose_name_is_no_utf8_is_no_reason_to_fall_over() -> None:
    file = Path("/srv/\udcff\udcfe/rkvisor.toml")
    assert parse(MODEL, file).listen.clients == ["ipc:///srv/\udcff\udcfe/run/client.sock"]


@pytest.mark.parametrize("value", ["true", '"true"', "false", '"false"', '"unexpected"'])
def test_autorestart_may_be_written_as_supervisord_has_it(value: str) -> None:
    config = read(MODEL + f"autorestart = {value}\n")
    assert config.models["demo"].autorestart == value.strip('"')


@pytest.mark.parametrize(
    "endpoint", ["tcp://127.0.0.1:5570", "tcp://127.9.9.9:1", "tcp://localhost:65535", "tcp://[::1]:80"]
)
def test_loopback_is_served_without_keys(endpoint: str) -> None:
    assert read(f'[listen]\nclients = ["{endpoint}"]\n' + MODEL).listen.clients == [endpoint]


SECTIONS: list[tuple[str, type[Any]]] = [
    ("supervisor", SupervisorSection),
    ("listen", ListenSection),
    ("limits", LimitsSection),
    ("models.demo", ModelSection),
]
keys = st.sampled_from([(section, key) for section, kind in SECTIONS for key in kind.__struct_fields__])
words = st.sampled_from(
    [
        *('""', '"x"', '"sim"', '"llama"', '"builtin:tiny"', '"a/b"', '"demo"', '"other"', '"f5"', '"F4"', '"true"'),
        *('"ipc://x"', '"tcp://127.0.0.1:1"', '"tcp://127.0.0.1:0"', '"ipc://run/private/worker.sock"', '"\\u0000"'),
        *(
            "true",
            "false",
            "0",
            "1",
            "-1",
            "2",
            "256",
            "99999999999999999999",
            "1" * 5000,
            "0.5",
            "nan",
            "-inf",
            "1e308",
        ),
        *("[]", "[1]", '["x"]', '["ipc://y"]', '["demo"]', '["other"]', "{}", "{a = 1}", "{a = 'b'}", "1979-05-27"),
        *("07:32:00", "[" * 400 + "]" * 400, "[[1], {x = 2}]"),
    ]
)


@settings(max_examples=300)
@given(st.dictionaries(keys, words, max_size=4))
@example({("models.demo", "workers"): "1" * 5000})
@example({("models.demo", "param"): "[" * 100_000})
def test_any_values_under_any_keys_are_taken_or_refused(values: dict[tuple[str, str], str]) -> None:
    sections: dict[str, dict[str, str]] = {
        "models.demo": {"runtime": '"sim"', "path": '"builtin:tiny"'},
        "models.other": {"runtime": '"sim"', "path": '"builtin:tiny"'},
    }
    for (section, key), value in values.items():
        sections.setdefault(section, {})[key] = value
    text = "\n".join(
        f"[{section}]\n" + "\n".join(f"{key} = {value}" for key, value in members.items())
        for section, members in sections.items()
    )
    check_total(text)


@given(st.text(max_size=80))
@example("a = " + "[" * 100_000)
@example("a = " + "{a=" * 100_000)
@example("a = " + "9" * 5000)
@example("a." * 500 + "a = 1")
@example("\ufeff[models]")
@example("[models.demo]\r\nruntime = 'sim'")
def test_any_text_is_taken_or_refused(text: str) -> None:
    check_total(text)


def check_total(text: str) -> None:
    try:
        outcome: Config | str = read(text)
    except ConfigError as error:
        outcome = str(error)
    if isinstance(outcome, str):
        assert outcome.startswith("cannot ")
        assert str(FILE) in outcome


def test_tokenizer_and_template_are_files_beside_the_configuration() -> None:
    demo = read(MODEL + 'tokenizer = "t/tokenizer.json"\nchat_template = "/opt/chat.jinja"\n').models["demo"]
    assert (demo.tokenizer, demo.chat_template) == ("/srv/rkv/t/tokenizer.json", "/opt/chat.jinja")
    assert "chat_template needs a tokenizer beside it" in refusal(MODEL + 'chat_template = "chat.jinja"\n')
    gguf = '[models.demo]\nruntime = "llama"\npath = "m.gguf"\nchat_template = "chat.jinja"\n'
    assert read(gguf).models["demo"].tokenizer is None, "a GGUF file has a tokenizer of its own"


def test_a_tokenizer_or_a_template_that_is_missing_is_told_by_its_key(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    text = MODEL + 'tokenizer = "tokenizer.json"\n'
    check_files(parse(text, tmp_path / "rkvisor.toml"))
    check_files(read(MODEL))
    for key, missing in (("chat_template", "chat.jinja"), ("tokenizer", "no.json")):
        other = MODEL + f'{key} = "{missing}"\n' + ('tokenizer = "tokenizer.json"\n' if key != "tokenizer" else "")
        with pytest.raises(ConfigError, match=rf"\[models\.demo\]: {key} = '{tmp_path}/{missing}' is no file"):
            check_files(parse(other, tmp_path / "rkvisor.toml"))
