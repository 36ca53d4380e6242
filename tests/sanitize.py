"""``make sanitize``: the C and C++ parts under AddressSanitizer and UndefinedBehaviorSanitizer.

Copies the tree, builds the extension and the simulators there with both sanitizers (the tree's own libraries are never
touched), the CPU runtime too if its engine is installed, and runs the tests that call them.  Every process writes its
reports into one folder; a single report, or a test that fails, makes the exit status 1.

    python -P tests/sanitize.py [--keep] [-k EXPRESSION]
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FILES = ("setup.py", "pyproject.toml", "README.md", "LICENSE", "MANIFEST.in")
FOLDERS = ("protocol", "supervisor", "worker", "cython_ext", "client", "batch", "etc", "tests")
#: Tests that call the C parts, by the beginning of their names, in two lots that run side by side.
LOTS = (
    ("test_binding", "test_simulator", "test_detection_probe", "test_foreign_programs", "test_crash"),
    ("test_llama",),
)
#: Not these: they use another sanitizer and the two do not go together; they compare builds; or they look for frames
#: where a sanitized runtime has others.
WITHOUT = "not data_races and not test_llama_install and not a_crash_in_init_is"
#: pytest's exit status where -k chose no test.
NOTHING_CHOSEN = 5
#: When a lot counts as hung, seconds: many times what it takes on two idle cores.
LIMIT_S = 1800
#: Everything is slower under the sanitizers.
UNIT_S = 4


class Failed(Exception):
    """A step failed; what it printed was shown."""


def say(text: str) -> None:
    """One line, at once, with the seconds since the start."""
    print(f"== {text} ({time.monotonic() - STARTED_S:.0f} s so far)", flush=True)


STARTED_S = time.monotonic()


def library(name: str) -> str:
    """The path of one of the compiler's own libraries."""
    done = subprocess.run(["g++", f"-print-file-name={name}"], capture_output=True, text=True, check=True)
    path = done.stdout.strip()
    if not Path(path).is_absolute():
        raise Failed(f"cannot find {name}: the compiler has no sanitizers; install libasan and libubsan")
    return path


def copy_tree(target: Path) -> None:
    """The sources, without anything that was built."""
    unwanted = shutil.ignore_patterns("*.so", "__pycache__", "*.pyc", ".hypothesis")
    for name in FILES:
        shutil.copy2(ROOT / name, target / name)
    for name in FOLDERS:
        shutil.copytree(ROOT / name, target / name, ignore=unwanted, symlinks=True)


def environment(tree: Path, reports: Path) -> dict[str, str]:
    """For programs that load what was built with the sanitizers.

    Faults that the simulator commits on purpose must end the process as they do elsewhere: the signals are not
    handled.  Leaks are not looked for, because the interpreter has its own.
    """
    signals = ":".join(f"handle_{name}=0" for name in ("segv", "sigbus", "sigfpe", "sigill", "abort"))
    common = f"log_path={reports}/report:print_stacktrace=1"
    return {
        **os.environ,
        # The C++ library too: the sanitizer looks for its exceptions when it comes up, long before an extension loads.
        "LD_PRELOAD": f"{library('libasan.so')}:{library('libstdc++.so')}",
        "PYTHONMALLOC": "malloc",
        "ASAN_OPTIONS": f"{common}:detect_leaks=0:allocator_may_return_null=1:use_sigaltstack=0:{signals}",
        "UBSAN_OPTIONS": common,
        "PYTHONPATH": str(tree / "build" / "ns"),
        "RKVISOR_TEST_UNIT_S": str(UNIT_S),
    }


def run(words: list[str], tree: Path, env: dict[str, str]) -> None:
    """Run one program in the copy.  Raises Failed."""
    status = subprocess.run(words, cwd=tree, env=env, check=False).returncode
    if status != 0:
        raise Failed(f"{' '.join(words[1:4])} … ended with status {status}")


def build(tree: Path) -> None:
    """The extension and the simulators, quietly unless it fails.  Raises Failed."""
    words = [sys.executable, "-P", "setup.py", "-q", "build_ext", "--inplace", "-j2"]
    env = {**os.environ, "RKVISOR_SANITIZE": "1"}
    done = subprocess.run(words, cwd=tree, env=env, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failed(f"cannot build with the sanitizers:\n{done.stdout[-4000:]}{done.stderr[-8000:]}")


def check_copy(tree: Path, env: dict[str, str]) -> None:
    """What will be tested is the copy and is instrumented.  Raises Failed."""
    code = (
        "import ctypes, rkvisor.cython_ext._rkllm as m; print(m.__file__);"
        "print(hasattr(ctypes.CDLL(m.__file__), '__asan_init'))"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=tree, env=env, capture_output=True, text=True, check=False
    )
    path, _, is_instrumented = done.stdout.strip().partition("\n")
    if done.returncode != 0 or tree not in Path(path).resolve().parents or is_instrumented != "True":
        raise Failed(f"cannot use the copy in {tree}: {done.stdout}{done.stderr}")


def has_engine() -> bool:
    """Whether the CPU runtime can be built here."""
    code = "from rkvisor.cython_ext import build_llama as b, llama_engine as e; b.require_engine(); e.find_model()"
    return subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, check=False).returncode == 0


def sanitize(tree: Path, reports: Path, keyword: str) -> None:
    """All steps.  Raises Failed."""
    copy_tree(tree)
    say("building the extension and the simulators with -fsanitize=address,undefined")
    build(tree)
    env = environment(tree, reports)
    check_copy(tree, env)
    if has_engine():
        say("building the CPU runtime likewise")
        plain = {**os.environ, "PYTHONPATH": env["PYTHONPATH"]}
        run([sys.executable, "-P", "-m", "rkvisor.cython_ext.build_llama", "--sanitize"], tree, plain)
    else:
        say("leaving out the CPU runtime: its engine is not installed (make llama)")
    try:
        test(tree, env, keyword)
    finally:
        show(reports)


def test(tree: Path, env: dict[str, str], keyword: str) -> None:
    """Run the lots of tests side by side, and show what each said.  Raises Failed."""
    folder = tree / "tests" / "functional"
    chosen = f"{WITHOUT} and ({keyword})" if keyword else WITHOUT
    words = [sys.executable, "-P", "-m", "pytest", "-q", "--timeout=300", "-p", "no:cacheprovider", "-k", chosen]
    running = []
    for lot in LOTS:
        names = sorted(str(path.relative_to(tree)) for path in folder.rglob("*.py") if path.stem.startswith(lot))
        say(f"testing {', '.join(Path(name).stem for name in names)}")
        with (tree / f"{lot[0]}.log").open("wb") as log:
            process = subprocess.Popen(
                [*words, *names], cwd=tree, env=env, stdout=log, stderr=log, start_new_session=True
            )
            running.append((process, log.name))
    failed = 0
    for process, log_name in running:
        failed += wait(process) not in (0, NOTHING_CHOSEN)
        print(Path(log_name).read_text(errors="replace"))
    if failed:
        raise Failed("some tests failed")


def wait(process: subprocess.Popen[bytes]) -> int:
    """The exit status; whatever hangs is ended with its children after ``LIMIT_S``."""
    try:
        return process.wait(LIMIT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return process.wait()


def show(reports: Path) -> None:
    """Print what the sanitizers found.  Raises Failed if there is anything."""
    found = sorted(reports.glob("report*"))
    for report in found[:10]:
        print(f"-- {report.name}\n{report.read_text(errors='replace')[:6000]}", file=sys.stderr)
    if found:
        raise Failed(f"the sanitizers wrote {len(found)} report(s)")


def main() -> int:
    """Exit status 0 if nothing was found."""
    parser = argparse.ArgumentParser(description="Test the C and C++ parts under ASan and UBSan.")
    parser.add_argument("--keep", action="store_true", help="leave the copy, and say where it is")
    parser.add_argument("-k", metavar="EXPRESSION", default="", help="only these tests, as pytest has it")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="rkvisor-sanitize-"))
    try:
        tree, reports = folder / "tree", folder / "reports"
        tree.mkdir()
        reports.mkdir()
        sanitize(tree, reports, args.k)
    except Failed as failure:
        print(f"sanitize: {failure}", file=sys.stderr)
        return 1
    finally:
        if args.keep:
            print(f"sanitize: the copy is in {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    say("nothing found")
    return 0


if __name__ == "__main__":
    sys.exit(main())
