"""Build recipe: maps the top-level folders onto the ``rkvisor`` namespace and builds the C parts.

Static metadata lives in pyproject.toml; only what must be code is here.  ``RKVISOR_SANITIZE=1`` builds everything with
AddressSanitizer and UndefinedBehaviorSanitizer.  The CPU runtime is not built here, because it needs an installed
llama-cpp-python: ``python -m rkvisor.cython_ext.build_llama`` builds it.
"""

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

FOLDERS = ["protocol", "supervisor", "worker", "cython_ext", "client", "batch", "etc"]
#: Every folder of Python below these, however deep, is a package: no list to forget one in.
PACKAGES = {
    ".".join(["rkvisor", *init.parent.parts]): str(init.parent)
    for folder in FOLDERS
    for init in sorted(Path(folder).rglob("__init__.py"))
} | {"rkvisor.cython_ext.abi": "cython_ext/abi"}
NAMESPACE = Path("build/ns")  # rkvisor/<pkg> links for tools that resolve packages by directory

SANITIZE = os.environ.get("RKVISOR_SANITIZE") == "1"
SANITIZERS = ["-fsanitize=address,undefined"] if SANITIZE else []
OPTIMISE = ["-O1", "-g", "-fno-omit-frame-pointer"] if SANITIZE else ["-O2", "-g"]
CFLAGS = ["-Wall", "-Wextra", *OPTIMISE, *SANITIZERS]
COMPLETE = [] if SANITIZE else ["-Wl,-z,defs"]  # a sanitizer's symbols come with the program
HEADERS = sorted(str(path) for path in Path("cython_ext/include").glob("*.h*"))
SIM_SOURCES = sorted(str(path) for path in Path("cython_ext/sim").glob("*.c"))
SIM_HEADERS = sorted(str(path) for path in Path("cython_ext/sim").glob("*.h"))


class SharedLibrary(Extension):
    """A plain C shared library: no ``PyInit_*`` symbol, no interpreter tag in its file name."""


class BuildExt(build_ext):
    """Name ``SharedLibrary`` targets ``lib<name>.so``; leave real extensions alone."""

    def get_ext_filename(self, fullname):
        if isinstance(self.ext_map.get(fullname), SharedLibrary):
            *package, name = fullname.split(".")
            return str(Path(*package, f"lib{name}.so"))
        return super().get_ext_filename(fullname)

    def get_export_symbols(self, ext):
        return ext.export_symbols if isinstance(ext, SharedLibrary) else super().get_export_symbols(ext)


def link_namespace() -> None:
    """Make ``build/ns/rkvisor/<pkg>`` point at ``<pkg>`` (idempotent)."""
    for folder in FOLDERS:
        link = NAMESPACE / "rkvisor" / folder
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink():
            link.symlink_to(os.path.relpath(folder, link.parent), target_is_directory=True)


def simulator(name: str, family: int) -> SharedLibrary:
    """The simulator built as one ABI family, e.g. ``librkllmrt_sim_f4.so``."""
    return SharedLibrary(
        f"rkvisor.cython_ext.{name}",
        SIM_SOURCES,
        depends=[*HEADERS, *SIM_HEADERS],
        include_dirs=["cython_ext/include", "cython_ext/sim"],
        define_macros=[("RKLLM_FAMILY", str(family)), ("_GNU_SOURCE", "1")],
        extra_compile_args=[*CFLAGS, "-std=c11", "-fvisibility=hidden", "-pthread"],
        extra_link_args=[*SANITIZERS, f"-Wl,-soname,lib{name}.so", "-pthread", "-lm", *COMPLETE],
    )


def crash_note() -> SharedLibrary:
    """What a dying worker writes its last words with."""
    return SharedLibrary(
        "rkvisor.cython_ext.rkvisor_crash",
        sorted(str(path) for path in Path("cython_ext/crash").glob("*.c")),
        depends=["cython_ext/crash/note.h"],
        include_dirs=["cython_ext/crash"],
        define_macros=[("_GNU_SOURCE", "1")],
        extra_compile_args=[*CFLAGS, "-std=c11", "-fvisibility=hidden", "-pthread"],
        extra_link_args=[*SANITIZERS, "-Wl,-soname,librkvisor_crash.so"],
    )


link_namespace()
setup(
    packages=list(PACKAGES),
    package_dir=PACKAGES,
    package_data={
        "": ["py.typed", "*.pyi"],
        "rkvisor.cython_ext": ["include/*.h", "llama/*.cpp", "llama/*.h", "llama/*.hpp"],
        "rkvisor.cython_ext.abi": ["*.json"],
        "rkvisor.etc": ["*.toml", "models/*.toml", "*.service", "*.rules"],
    },
    include_package_data=False,
    cmdclass={"build_ext": BuildExt},
    ext_modules=[
        *cythonize(
            [
                Extension(
                    "rkvisor.cython_ext._rkllm",
                    ["cython_ext/_rkllm.pyx"],
                    depends=HEADERS,
                    include_dirs=["cython_ext/include"],
                    language="c++",
                    extra_compile_args=[*CFLAGS, "-std=c++17", "-Wno-unused-function"],
                    extra_link_args=SANITIZERS,
                )
            ],
            include_path=[str(NAMESPACE)],
            build_dir="build/cython",
            compiler_directives={"language_level": 3, "auto_pickle": False},
            emit_linenums=True,  # the tracker and crash reports tell lines of the sources that people read
        ),
        *(simulator(f"rkllmrt_sim_f{family}", family) for family in (1, 3, 4, 5)),
        simulator("rkllmrt_sim", 5),
        crash_note(),
    ],
)
