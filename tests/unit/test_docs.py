"""The documentation says what the code does: generated tables, links, examples, numbers and files that it names."""

import importlib.util
import json
import re
import struct
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

from rkvisor.client import errors as client_errors
from rkvisor.cython_ext import llama_engine
from rkvisor.cython_ext.llama_engine import MODEL_PACKAGE, MODEL_VERSION
from rkvisor.protocol import link
from rkvisor.protocol.errors import CATALOGUE, RKLLM_CODES
from rkvisor.protocol.link import Kind
from rkvisor.protocol.methods import METHODS
from rkvisor.protocol.page import SIZE_BYTES, Page
from rkvisor.supervisor import config

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), ROOT / "protocol" / "README.md", *(ROOT / "docs").rglob("*.md")])
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]


def load_generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


generate = load_generator()


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def without_code(text: str) -> str:
    """A page without its code blocks and code spans."""
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    text = re.sub(r"(?m)^    .*$", "", text)
    return re.sub(r"`[^`]*`", "", text)


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    heads = re.findall(r"(?m)^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("name", NAMES)
def test_generated_tables_are_as_the_code_has_it(name: str) -> None:
    text = read(name)
    assert generate.render(text) == text, "run: make docs"


def test_every_generator_of_a_table_is_used_by_a_page() -> None:
    used = {name for page in NAMES for name in re.findall(r"<!-- generated: (\w+) -->", read(page))}
    assert used == set(generate.BLOCKS)


def test_a_table_of_an_unknown_name_is_an_error() -> None:
    with pytest.raises(generate.CannotGenerate, match="no_such_table"):
        generate.render("<!-- generated: no_such_table -->\n<!-- end -->")


def test_a_name_without_a_text_and_a_text_without_a_name_are_errors() -> None:
    known = {kind.name: "" for kind in Kind}
    with pytest.raises(generate.CannotGenerate, match="cannot describe NEW_KIND"):
        generate.texts("link.kinds", {**known, "NEW_KIND": ""})
    assert generate.texts("link.kinds", {**known, "NEW_KIND": "Told by the code."})["NEW_KIND"] == "Told by the code."
    del known["HELLO"]
    with pytest.raises(generate.CannotGenerate, match="remove HELLO"):
        generate.texts("link.kinds", known)


@pytest.mark.parametrize("name", NAMES)
def test_relative_links_lead_to_a_file_and_to_a_heading_in_it(name: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(read(name)).replace("[]", "")) + re.findall(
        r"\[`[^`]*`\]\(([^)\s]+)\)", read(name)
    ):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        page = (ROOT / name).parent / path if path else ROOT / name
        assert page.exists(), f"{name} links to {target}"
        if anchor:
            assert anchor in anchors(page.read_text(encoding="utf-8")), f"{name} links to {target}"


def test_every_page_below_docs_is_reachable_from_the_index() -> None:
    reached, todo = set(), [ROOT / "docs" / "index.md"]
    while todo:
        page = todo.pop()
        if page in reached or page.suffix != ".md" or not page.exists():
            continue
        reached.add(page)
        for target in re.findall(r"\]\(([^)\s#]+)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                todo.append((page.parent / target).resolve())
    assert [page for page in (ROOT / "docs").rglob("*.md") if page not in reached] == []


@pytest.mark.parametrize("name", ["rkvisor.toml", "system.toml"])
def test_a_shipped_configuration_is_accepted(name: str) -> None:
    path = ROOT / "etc" / name
    read_config = config.parse(path.read_text(encoding="utf-8"), path)
    assert read_config.models["demo"].path == "builtin:tiny"


def test_what_the_example_configuration_sets_are_the_defaults() -> None:
    parsed = config.parse(read("etc/rkvisor.toml"), Path("/x/rkvisor.toml"))
    plain = config.parse('[models.demo]\nruntime = "sim"\npath = "builtin:tiny"\nworkers = 2', Path("/x/rkvisor.toml"))
    assert parsed.supervisor == plain.supervisor
    assert parsed.limits == plain.limits
    assert parsed.models == plain.models
    assert (parsed.listen.admin, parsed.listen.events) == (plain.listen.admin, plain.listen.events)
    assert set(plain.listen.clients) < set(parsed.listen.clients)


def test_the_services_configuration_writes_only_where_the_unit_lets_it() -> None:
    parsed = config.parse(read("etc/system.toml"), Path("/etc/rkvisor/rkvisor.toml"))
    unit = read("etc/rkvisor.service")
    assert "ProtectSystem=strict" in unit
    assert ("RuntimeDirectory=rkvisor" in unit, "StateDirectory=rkvisor" in unit) == (True, True)
    assert (parsed.supervisor.run_dir, parsed.supervisor.state_dir) == ("/run/rkvisor", "/var/lib/rkvisor")
    for endpoint in (*parsed.listen.clients, parsed.listen.admin, *parsed.listen.events):
        assert endpoint.startswith("ipc:///run/rkvisor/")


@pytest.mark.parametrize("name", NAMES)
def test_configurations_in_the_pages_are_accepted(name: str) -> None:
    for block in re.findall(r"```toml\n(.*?)```", read(name), re.DOTALL):
        if "[models." in block:
            config.parse(block, Path("/x/rkvisor.toml"))


@pytest.mark.parametrize("name", NAMES)
def test_code_in_the_pages_is_code(name: str) -> None:
    text = read(name)
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        compile(block, name, "exec", dont_inherit=True)
    for block in re.findall(r"```json\n(.*?)```", text, re.DOTALL):
        json.loads(block)


@pytest.mark.parametrize("name", NAMES)
def test_methods_and_errors_that_a_page_names_exist(name: str) -> None:
    designed = {*generate.DESIGNED, *METHODS, "rkllm.token", "rkvisor.progress", "memory.leak"}
    text = read(name)
    for method in re.findall(r"`((?:rkllm|system|model|memory|admin|rpc)\.\w+)`", text):
        assert method in designed, f"{name} names the method {method}"
    own = {kind.name for kind in vars(client_errors).values() if isinstance(kind, type) and hasattr(kind, "name")}
    names = own | {*CATALOGUE, *RKLLM_CODES, *re.findall(r"\b(RKLLM_\w+)", read("protocol/rkllm_log.py"))}
    known = names | {kind.name for kind in Kind} | {"RKLLM_LOG_LEVEL", "RKLLM_RUN_ERROR"}
    for word in re.findall(r"\b(?:[A-Z]+_[A-Z_]+)\b", without_code(text)):
        is_error = any(word.endswith(f"_{name.rsplit('_', 1)[-1]}") for name in CATALOGUE)
        assert word in known or not is_error, f"{name} names the error {word}"


def test_the_header_in_the_wires_page_has_the_offsets_of_the_struct() -> None:
    section = read("protocol/README.md").partition("### The header")[2].partition("### The kinds")[0]
    rows = re.findall(r"(?m)^\| (\d+) \| ([ui])(8|16|32|64) \| `(\w+)` \|", section)
    letters = {("u", "8"): "B", ("u", "16"): "H", ("u", "32"): "I", ("u", "64"): "Q", ("i", "32"): "i"}
    told = "<" + "".join(letters[sign, bits] for _, sign, bits, _ in rows)
    assert told == link.HEADER.format
    assert [int(at) for at, *_ in rows] == [struct.calcsize(told[: i + 1]) for i in range(len(rows))]


def test_the_wires_page_tells_where_a_message_has_what() -> None:
    """A TOKEN taken apart by the page's own words."""
    frame = link.pack(Kind.TOKEN, incarnation=7, job=2**40, seq=5, ids=(30, 31, 99))
    assert (frame[0], frame[1]) == (link.LINK_VERSION, Kind.TOKEN)
    assert struct.unpack_from("<H", frame, 2) == (2,)
    assert struct.unpack_from("<I", frame, 4) == (7,)
    assert struct.unpack_from("<Q", frame, 8) == (2**40,)
    assert struct.unpack_from("<I", frame, 16) == (5,)
    assert struct.unpack_from("<i", frame, 20) == (99,)
    assert struct.unpack_from("<2i", frame, 24) == (30, 31)
    assert link.encode_fragment(0, "Hello", (15043,)) == b'"seq":0,"text":"Hello","token_id":15043'


def test_the_page_of_memory_is_laid_out_as_its_table_says() -> None:
    rows = re.findall(
        r"(?m)^\| (\d+) \| [uf]64 \| `(\w+)` \| ", read("protocol/README.md").partition("### The page")[2]
    )
    at = {name: int(offset) for offset, name in rows}
    memory = bytearray(SIZE_BYTES)
    page = Page(memory)  # type: ignore[arg-type]
    page.step(5, 1.5)
    page.begin(11)
    page.step(22, 2.5)
    page.served(4096, 1024, tokens_in=6, tokens_out=7)
    page.count(2048, 33)
    assert struct.unpack_from("<d", memory, at.pop("progress_s")) == (2.5,)
    found = {name: struct.unpack_from("<Q", memory, offset)[0] for name, offset in at.items()}
    assert found == {"job": 11, "progress": 22, "base": 5, "served": 1, "rss_bytes": 4096} | {
        "shared_bytes": 1024,
        "tokens_in": 6,
        "tokens_out": 7,
        "context_tokens": 13,
        "counted": 1,
        "buffers_bytes": 2048,
        "python_blocks": 33,
        "is_running": 0,
    }


@pytest.mark.parametrize("program", ["rkvisord", "rkvisorctl"])
def test_options_of_the_programs_are_in_their_reference(program: str) -> None:
    module = {"rkvisord": "rkvisor.supervisor.daemon", "rkvisorctl": "rkvisor.supervisor.ctl.main"}[program]
    done = subprocess.run([sys.executable, "-P", "-m", module, "--help"], capture_output=True, text=True, check=True)
    page = read(f"docs/reference/{program}.md")
    found = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", done.stdout))
    assert found
    assert found <= set(re.findall(r"--[a-z][a-z-]+", page))


def test_files_that_the_readme_shows_are_the_files_that_are_there() -> None:
    for name in re.findall(r"(?<![\w./-])((?:docs|etc|protocol)/[\w./-]+\w)", read("README.md")):
        assert (ROOT / name).exists(), name


def test_targets_of_make_that_a_page_names_exist() -> None:
    targets = set(re.findall(r"(?m)^([a-z]+):", read("Makefile")))
    for name in NAMES:
        for target in re.findall(r"`make ([a-z]+)", read(name)) + re.findall(r"(?m)^    make ([a-z]+)", read(name)):
            assert target in targets, f"{name} says make {target}"


def test_numbers_of_the_benchmark_come_from_its_results() -> None:
    """Only docs/bench.md may tell a measured number, in tables that it generates."""
    for name in ("README.md", "docs/index.md", "docs/start.md"):
        assert not re.search(r"\d\s?(µs|ms|MB/s|tokens/s)\b", without_code(read(name))), name


def test_dependencies_are_those_of_the_project_and_what_is_not_used_is_said_so() -> None:
    project = tomllib.loads(read("pyproject.toml"))["project"]
    asked = [*project["dependencies"], *project["optional-dependencies"]["tokenizer"]]
    declared = dict(re.fullmatch(r"([\w-]+)>=([\d.]+)", one).groups() for one in asked)  # type: ignore[union-attr]
    rows = re.findall(r"(?m)^\| ([\w-]+) \| ([\d.]+) \| (.*?) \|", read("docs/dependencies.md"))
    assert {name: version for name, version, _ in rows} == declared
    folders = ("protocol", "supervisor", "worker", "client", "batch", "cython_ext")
    sources = "".join(path.read_text(encoding="utf-8") for name in folders for path in (ROOT / name).rglob("*.py"))
    for name, _, purpose in rows:
        module = {"pyzmq": "zmq"}.get(name, name)
        is_used = bool(re.search(rf"(?m)^\s*(?:import|from) {module}\b", sources))
        assert is_used == ("Not used yet" not in purpose), name


def test_the_pins_of_the_engine_are_those_of_the_code() -> None:
    page = read("docs/dependencies.md")
    for name, version in ((llama_engine.PACKAGE, llama_engine.VERSION), (MODEL_PACKAGE, MODEL_VERSION)):
        assert f"| {name} | exactly {version} |" in page
    assert json.loads(read("docs/clients/node/package.json"))["dependencies"] == {"zeromq": "6.8.0"}
    assert "npm's `zeromq`, exactly 6.8.0," in page


def test_options_that_argparse_hides_are_in_no_reference() -> None:
    assert not [name for name in NAMES if "SUPPRESS" in read(name)]


def test_the_small_model_is_called_as_the_package_that_brings_it_calls_it() -> None:
    told = {found for name in (*NAMES, "etc/rkvisor.toml") for found in re.findall(r"SmolLM2[\w.-]*\.gguf", read(name))}
    assert told == {"SmolLM2-135M-Instruct.Q4_1.gguf"}
