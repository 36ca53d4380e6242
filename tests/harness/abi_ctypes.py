"""The RKLLM ABI of one family as ctypes classes, built from ``cython_ext/abi/layouts.json``.

Knows layouts and signatures only.  Offsets and sizes are compared with the facts while the classes are built, so a
class whose layout differs from the vendor's cannot exist.
"""

import ctypes
import json
import re
from pathlib import Path
from typing import Any

from harness.places import ROOT

LAYOUTS = ROOT / "cython_ext" / "abi" / "layouts.json"
LIBRARIES = ROOT / "cython_ext"

_SCALARS: dict[str, Any] = {
    "int32_t": ctypes.c_int32,
    "uint32_t": ctypes.c_uint32,
    "int8_t": ctypes.c_int8,
    "uint8_t": ctypes.c_uint8,
    "uint64_t": ctypes.c_uint64,
    "size_t": ctypes.c_size_t,
    "int": ctypes.c_int,
    "float": ctypes.c_float,
    "bool": ctypes.c_bool,
    "char *": ctypes.c_char_p,
    "void *": ctypes.c_void_p,
    "LLMHandle": ctypes.c_void_p,
    "LLMHandle *": ctypes.POINTER(ctypes.c_void_p),
}


class Family:
    """Structs, enums and function types of one ABI family; ``Family("F4").RKLLMParam`` is a ctypes class.

    name: "F1" … "F5".  Raises KeyError for another one and AssertionError when a layout cannot be reproduced.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.facts = json.loads(LAYOUTS.read_text())["families"][name]
        self.structs: dict[str, Any] = {}
        self.callbacks: dict[str, Any] = {}
        for struct in self.facts["structs"]:
            self._struct(struct)
        for callback in self.facts["typedefs"]:
            self._type(callback)

    def __getattr__(self, name: str) -> Any:
        if name in self.facts["structs"]:
            return self._struct(name)
        for values in self.facts["enums"].values():
            if name in values:
                return values[name]
        if name in self.facts["typedefs"]:
            return self._type(name)
        raise AttributeError(name)

    def load(self, path: Path) -> Any:
        """The library at ``path`` with typed functions; OSError when it cannot be loaded."""
        library = ctypes.CDLL(str(path))
        for name, signature in self.facts["functions"].items():
            function = getattr(library, name)
            function.restype = self._type(signature["ret"])
            function.argtypes = [self._type(ctype) for ctype, _ in signature["params"]]
        if hasattr(library, "rkvisor_force_tokens"):
            force = library.rkvisor_force_tokens
            force.argtypes = [ctypes.c_void_p, ctypes.POINTER(ctypes.c_int32), ctypes.c_size_t]
        return library

    def _type(self, ctype: str) -> Any:
        ctype = ctype.removeprefix("const ").strip()
        if ctype in _SCALARS:
            return _SCALARS[ctype]
        if ctype in self.facts["enums"]:
            return ctypes.c_int
        if ctype in self.facts["typedefs"]:
            if ctype not in self.callbacks:
                self.callbacks[ctype] = self._function(self.facts["typedefs"][ctype])
            return self.callbacks[ctype]
        if array := re.fullmatch(r"(\w+)\[(\d+)\]", ctype):
            return self._type(array[1]) * int(array[2])
        if ctype.endswith("*"):
            return ctypes.POINTER(self._type(ctype[:-1].strip()))
        return self._struct(ctype)

    def _function(self, signature: str) -> Any:
        match = re.fullmatch(r"(\w+) \(\*\)\((.*)\)", signature)
        assert match, signature
        result = None if match[1] == "void" else self._type(match[1])
        return ctypes.CFUNCTYPE(result, *(self._type(part.strip()) for part in match[2].split(",")))

    def _struct(self, name: str) -> Any:
        if name not in self.structs:
            facts = self.facts["structs"][name]
            cls = self._build(name, facts["fields"])
            assert ctypes.sizeof(cls) == facts["size"], name
            assert ctypes.alignment(cls) == facts["align"], name
            for offset, size, ctype, field in facts["fields"]:
                if not ctype.startswith(("anonymous", "struct")):
                    assert _place(cls, field) == (offset, size), f"{name}.{field}"
            self.structs[name] = cls
        return self.structs[name]

    def _build(self, name: str, facts: list[list[Any]]) -> Any:
        members: list[tuple[str, Any]] = []
        nested: dict[str, list[tuple[str, Any]]] = {}
        union: list[tuple[str, Any]] | None = None
        for _offset, _size, ctype, field in facts:
            outer, _, inner = field.partition(".")
            if ctype.startswith("anonymous union"):
                union = []
            elif ctype == "struct":
                nested[field] = []
                members.append((field, field))
            elif inner:
                nested[outer].append((inner, self._type(ctype)))
            else:
                (members if union is None else union).append((field, self._type(ctype)))
        for field, fields in nested.items():
            cls = type(f"{name}_{field}", (ctypes.Structure,), {"_fields_": fields})
            members[members.index((field, field))] = (field, cls)
        body: dict[str, Any] = {}
        if union is not None:
            members.append(("_union", type(f"{name}_union", (ctypes.Union,), {"_fields_": union})))
            body["_anonymous_"] = ("_union",)
        return type(name, (ctypes.Structure,), {**body, "_fields_": members})


def _place(cls: Any, path: str) -> tuple[int, int]:
    """Offset and size in bytes of ``a`` or ``a.b`` in a class."""
    outer, _, inner = path.partition(".")
    field = getattr(cls, outer)
    if not inner:
        return field.offset, field.size
    part = dict(cls._fields_)[outer]
    return field.offset + getattr(part, inner).offset, getattr(part, inner).size
