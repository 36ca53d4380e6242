"""The vocabulary of a GGUF file as libllama itself reads it, through the package that brings the library.

Only for tests that compare: rkvisor never imports that package.  Run it in a process of its own, because libllama
cannot be unloaded:  python -P -m harness.libllama GGUF < texts.json > ids.json
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import sys
import types


def main() -> None:
    """Read a list of texts, write a list of lists of ids: special tokens parsed, none added."""
    package = types.ModuleType("llama_cpp")  # without its conveniences, which need packages that rkvisor does not
    package.__path__ = list(importlib.util.find_spec("llama_cpp").submodule_search_locations)  # type: ignore[union-attr, arg-type]
    sys.modules["llama_cpp"] = package
    llama_cpp = importlib.import_module("llama_cpp.llama_cpp")
    silent = llama_cpp.llama_log_callback(lambda *_: None)
    llama_cpp.llama_log_set(silent, ctypes.c_void_p(0))
    params = llama_cpp.llama_model_default_params()
    params.vocab_only = True
    model = llama_cpp.llama_model_load_from_file(sys.argv[1].encode(), params)
    assert model, f"libllama cannot load {sys.argv[1]}"
    vocabulary = llama_cpp.llama_model_get_vocab(model)
    found = []
    for text in json.load(sys.stdin):
        data = text.encode()
        ids = (ctypes.c_int32 * (2 * len(data) + 8))()
        count = llama_cpp.llama_tokenize(vocabulary, data, len(data), ids, len(ids), False, True)
        assert count >= 0, text
        found.append(list(ids[:count]))
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
