"""Dead letters: requests that ended every process that ran them, kept for the operator to look at, release or purge."""

from __future__ import annotations

from typing import Any

import msgspec
from loguru import logger

from rkvisor.protocol.crashes import DeadLetter, DeadLetterList, Purged, Released
from rkvisor.protocol.errors import InvalidParams
from rkvisor.protocol.methods import DigestParams, PurgeParams
from rkvisor.protocol.params import NoParams
from rkvisor.supervisor.clock import Clock
from rkvisor.supervisor.front.replies import Reply
from rkvisor.supervisor.requests.jobs import Job
from rkvisor.supervisor.requests.quarantine import Quarantine
from rkvisor.supervisor.store.database import Store


class DeadLetters:
    """store_prompts: keep the payload too, not only its digest."""

    def __init__(self, clock: Clock, store: Store, quarantine: Quarantine, *, store_prompts: bool):
        self._clock = clock
        self._store = store
        self._quarantine = quarantine
        self._store_prompts = store_prompts

    def add(self, job: Job, error: bytes) -> None:
        """*job* is poison.  error: the JSON text of the error object that its client gets."""
        if self._quarantine.ttl_s > 0:
            self._store.put_quarantine(job.digest, self._quarantine.ttl_s)
        letter = DeadLetter(
            digest=job.digest.hex(),
            model=job.model,
            principal=job.principal,
            time=round(self._clock.wall(), 3),
            deaths=job.charged,
            error=_without_text(msgspec.json.decode(error, type=dict[str, Any])),
            payload=job.raw_params.decode() if self._store_prompts else None,
        )
        self._store.put_dead_letter(job.digest, msgspec.json.encode(letter))
        logger.warning("model {}: request {}… ended {} processes", job.model, job.digest.hex()[:12], job.charged)

    def _read(self, body: bytes) -> DeadLetter | None:
        try:
            letter = msgspec.json.decode(body, type=DeadLetter)
        except msgspec.DecodeError:  # of another version of rkvisor
            return None
        left_s = self._quarantine.left_s(bytes.fromhex(letter.digest), self._clock.monotonic())
        return msgspec.structs.replace(letter, quarantined_s=round(left_s, 1))

    def list(self, params: NoParams, reply: Reply) -> None:
        """``admin.dead_letters``."""

        def tell(found: list[tuple[str, bytes]] | None) -> None:
            letters = [letter for _, body in found or () if (letter := self._read(body)) is not None]
            reply.result(msgspec.json.encode(DeadLetterList(dead_letters=letters)))

        self._store.list_dead_letters("", tell)

    def show(self, params: DigestParams, reply: Reply) -> None:
        """``admin.dead_letter``: the only one whose digest begins so."""

        def tell(found: list[tuple[str, bytes]] | None) -> None:
            letters = [letter for _, body in found or () if (letter := self._read(body)) is not None]
            if len(letters) == 1:
                reply.result(msgspec.json.encode(letters[0]))
                return
            what = f"{len(letters)} of them have" if letters else "none of them has"
            error = InvalidParams(f"cannot show a dead letter: {what} a digest that begins with {params.digest}")
            reply.error(msgspec.json.encode(error.to_object(self._clock.wall())))

        self._store.list_dead_letters(params.digest.lower(), tell)

    def release(self, params: DigestParams, reply: Reply) -> None:
        """``admin.release``: let the requests of a digest run again.  Their letters stay."""
        released = self._quarantine.find(params.digest.lower())
        for digest in released:
            self._quarantine.release(digest)
            self._store.drop_quarantine(digest)
        reply.result(msgspec.json.encode(Released(released=[digest.hex() for digest in released])))

    def purge(self, params: PurgeParams, reply: Reply) -> None:
        """``admin.purge``: throw letters away.  What is refused stays refused."""

        def tell(number: int | None) -> None:
            reply.result(msgspec.json.encode(Purged(purged=number or 0)))

        self._store.purge_dead_letters((params.digest or "").lower(), tell)


def _without_text(error: dict[str, Any]) -> dict[str, Any]:
    """*error* without what the model had answered so far, which may repeat the prompt."""
    data = error.get("data")
    if isinstance(data, dict):
        error["data"] = {key: value for key, value in data.items() if key not in ("text", "token_ids")}
    return error
