"""What is shipped is whole: sdist → wheel → an environment of its own → rkvisord → an answer."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import time
import venv
import zipfile
from pathlib import Path

import pytest

from harness.places import ROOT
from harness.rkvisord import PATIENCE_S

#: Compiling everything, on a busy machine.
BUILD_S = PATIENCE_S * 20
pytestmark = pytest.mark.timeout(BUILD_S)


def run(*words: str | Path, cwd: Path, timeout_s: float = PATIENCE_S) -> str:
    """Run a program as a user would, without what the tests' own environment adds; its output."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "RKVISOR_"))}
    done = subprocess.run(
        [str(word) for word in words], cwd=cwd, env=env, capture_output=True, text=True, timeout=timeout_s, check=False
    )
    assert done.returncode == 0, f"{words}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout as a fresh clone would have it, so that nothing that lies in it is touched."""
    target = tmp_path_factory.mktemp("source") / "tree"
    unwanted = shutil.ignore_patterns(".*", "build", "dist", "*.so", "*.egg-info", "__pycache__", "node_modules")
    shutil.copytree(ROOT, target, ignore=unwanted, symlinks=True)
    return target


@pytest.fixture(scope="module")
def sdist(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution."""
    out = tmp_path_factory.mktemp("sdist")
    words = [sys.executable, "-P", "-m", "build", "--sdist", "--no-isolation", "--outdir", out, tree]
    run(*words, cwd=tree, timeout_s=BUILD_S)
    [archive] = out.glob("rkvisor-*.tar.gz")
    return archive


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the sdist, as pip does it on a machine for which there is no wheel."""
    out = tmp_path_factory.mktemp("wheel")
    words = [sys.executable, "-P", "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    run(*words, "--no-cache-dir", "--wheel-dir", out, sdist, cwd=out, timeout_s=BUILD_S)
    [built] = out.glob("rkvisor-*.whl")
    return built


@pytest.fixture(scope="module")
def bin_dir(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Programs of an environment that has the wheel, and borrows its dependencies from the tests' environment."""
    home = tmp_path_factory.mktemp("installed") / "venv"
    venv.create(home, with_pip=False, symlinks=True)
    python = home / "bin" / "python"
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=home).strip())
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    words = [sys.executable, "-P", "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index"]
    run(*words, wheel, cwd=home, timeout_s=BUILD_S)
    return python.parent


def files(tree: Path, *patterns: str) -> set[str]:
    """Files of the tree that match, as paths relative to it; each pattern must match some."""
    found: set[str] = set()
    for pattern in patterns:
        matches = {str(path.relative_to(tree)) for path in tree.glob(pattern) if path.is_file()}
        assert matches, f"no file is like {pattern}"
        found |= matches
    return {name for name in found if "egg-info" not in name}


def test_the_sdist_has_the_sources_the_tests_and_the_documentation(sdist: Path, tree: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = files(tree, "*.toml", "*.py", "*.md", "Makefile", "LICENSE", "protocol/*", "supervisor/*", "worker/*")
    wanted |= files(tree, "cython_ext/**/*", "client/*", "batch/*", "etc/**/*", "docs/**/*")
    wanted |= files(tree, "tests/**/*.*", "bench/**/*.*")
    assert wanted - names == set()
    assert [name for name in names if name.endswith((".so", ".pyc")) or "node_modules" in name] == []


def test_the_wheel_has_libraries_data_and_sources_of_the_cpu_runtime_but_no_tests(wheel: Path, tree: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    libraries = {name.rpartition("/")[2].partition(".")[0] for name in names if name.endswith(".so")}
    simulators = {f"librkllmrt_sim_f{family}" for family in (1, 3, 4, 5)}
    assert libraries == {"_rkllm", "librkllmrt_sim", "librkvisor_crash", *simulators}
    wanted = files(tree, "cython_ext/llama/*", "cython_ext/include/*.h", "cython_ext/abi/*.json", "cython_ext/*.pyi")
    wanted |= files(tree, "etc/*.*", "etc/models/*.toml", "*/py.typed")
    for folder in ("protocol", "supervisor", "worker", "client", "batch", "cython_ext"):
        wanted |= files(tree, f"{folder}/**/*.py")
    assert {f"rkvisor/{name}" for name in wanted} - set(names) == set()
    assert "rkvisor/__init__.py" not in names, "rkvisor is a namespace"
    outside = [name for name in names if not name.startswith("rkvisor") or "/tests/" in name or "/bench/" in name]
    assert outside == []


def test_an_installed_rkvisord_answers_from_any_folder(bin_dir: Path, tmp_path: Path) -> None:
    shipped = run(bin_dir / "python", "-c", "import rkvisor.etc; print(rkvisor.etc.__path__[0])", cwd=tmp_path).strip()
    assert Path(shipped).is_relative_to(bin_dir.parent)
    text = (Path(shipped) / "rkvisor.toml").read_text(encoding="utf-8")
    (tmp_path / "rkvisor.toml").write_text(text.replace("127.0.0.1:5570", "127.0.0.1:*"))
    assert "ok, 1 model" in run(bin_dir / "rkvisord", "--check-config", cwd=tmp_path)
    with (tmp_path / "log").open("wb") as log:
        daemon = subprocess.Popen([bin_dir / "rkvisord"], cwd=tmp_path, stdout=log, stderr=log)
    try:
        wait_until_up(bin_dir, tmp_path)
        answer = run(bin_dir / "rkvisor", "run", "--json", "--max-new-tokens", "5", "Hello", cwd=tmp_path)
        assert re.search(r'"finish_reason":"length"', answer), answer
        assert run(bin_dir / "rkvisorctl", "version", cwd=tmp_path).strip() == wheel_version(bin_dir)
        assert run(bin_dir / "rkvisorctl", "shutdown", cwd=tmp_path) == "Shut down\n"
        assert daemon.wait(PATIENCE_S) == 0
    finally:
        daemon.kill()
        daemon.wait()
        print((tmp_path / "log").read_text())


def wait_until_up(bin_dir: Path, folder: Path) -> None:
    """Until rkvisorctl sees every worker up."""
    until = time.monotonic() + PATIENCE_S
    while subprocess.run([bin_dir / "rkvisorctl", "status"], cwd=folder, capture_output=True, check=False).returncode:
        assert time.monotonic() < until, "rkvisord did not come up"
        time.sleep(0.1)


def wheel_version(bin_dir: Path) -> str:
    """The version of the installed distribution."""
    code = "from importlib.metadata import version; print(version('rkvisor'))"
    return run(bin_dir / "python", "-c", code, cwd=bin_dir).strip()


def test_the_installed_cpu_runtime_can_be_built_where_its_engine_is(bin_dir: Path, tree: Path, tmp_path: Path) -> None:
    """Its sources are found there; that they compile is tested elsewhere, from the same files."""
    code = "from rkvisor.cython_ext import build_llama; print(*build_llama.sources(), sep='\\n')"
    sources = [Path(line) for line in run(bin_dir / "python", "-c", code, cwd=tmp_path).splitlines()]
    assert all(source.is_relative_to(bin_dir.parent) for source in sources)
    mine = {path.name for path in (tree / "cython_ext" / "llama").glob("*.cpp")} - {"engine_proof.cpp"}
    assert {source.name for source in sources} == mine
