"""The OpenRPC document of ``rpc.discover``, rendered from the types in ``methods.py`` that also validate."""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec

from rkvisor.protocol.diagnostics import DIAGNOSTICS
from rkvisor.protocol.errors import CATALOGUE
from rkvisor.protocol.methods import METHODS

OPENRPC_VERSION = "1.3.2"


@cache
def document(version: str, *, has_diagnostics: bool = False) -> dict[str, Any]:
    """The whole document, not to be changed: it is made once, for that takes 20 ms of the loop.

    version: rkvisor's.  has_diagnostics: the ``test_*`` methods are served too.
    """
    table = METHODS | DIAGNOSTICS if has_diagnostics else METHODS
    kinds = [kind for method in table.values() for kind in (method.params, method.result)]
    schemas, components = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
    methods = []
    for index, (name, method) in enumerate(table.items()):
        shape = components[schemas[2 * index]["$ref"].rpartition("/")[2]]
        required = set(shape.get("required", ()))
        params = [
            {"name": field, "required": field in required, "schema": schema}
            for field, schema in shape.get("properties", {}).items()
        ]
        methods.append(
            {
                "name": name,
                "summary": method.summary,
                "paramStructure": "either",
                "params": params,
                "result": {"name": "result", "schema": schemas[2 * index + 1]},
                "x-admin": method.admin,
            }
        )
    errors = {kind.name: {"code": kind.code, "message": kind.name} for kind in CATALOGUE.values()}
    return {
        "openrpc": OPENRPC_VERSION,
        "info": {"title": "rkvisor", "version": version, "license": {"name": "Apache-2.0"}},
        "methods": methods,
        "components": {"schemas": components, "errors": errors},
    }
