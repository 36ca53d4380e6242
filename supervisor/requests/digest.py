"""The digest of a payload: what a request asks to compute, however it was written, whatever its name or its hurry.

It is of the params as they were understood: by name or by position, in any order, defaults written out or left out,
they are the same payload.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec

from rkvisor.protocol.run import NOT_IN_DIGEST, RunParams

#: What stands in place of the members that do not count: their defaults.
_BLANK = {
    name: default
    for name, default in zip(RunParams.__struct_fields__[::-1], RunParams.__struct_defaults__[::-1], strict=False)
    if name in NOT_IN_DIGEST
}


def digest_of(params: RunParams, attachments: Sequence[bytes] = ()) -> bytes:
    """SHA-256, 32 bytes, of *params* without stream, deadline, priority and key.

    attachments: what the params refer to; each counts by its own digest.
    """
    whole = hashlib.sha256(msgspec.json.encode(msgspec.structs.replace(params, **_BLANK)))
    for attachment in attachments:
        whole.update(hashlib.sha256(attachment).digest())
    return whole.digest()
