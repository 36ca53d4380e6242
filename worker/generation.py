"""One request in the worker: decides what to send for each callback, and what the result is.  No socket, no thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from rkvisor.protocol import tensors
from rkvisor.protocol.errors import ResumeDiverged, RkllmFailure, RkvisorError
from rkvisor.protocol.link import Run, TurnEnd
from rkvisor.protocol.run import ItemResult, Perf, RunParams, RunResult, TensorResult
from rkvisor.worker.model import ERROR, FINISH, WAITING
from rkvisor.worker.prompts import Length
from rkvisor.worker.stream import Diverged, Group, Stream


class Generation:
    """send_group: sends a TOKEN.  abort: ends the runtime's run, which goes on a little.  is_in_step: it does not, as
    the runtime waits for what is said of each token.  is_restored: its session's earlier turns were replayed.  filled:
    tokens in the KV cache behind a turn of a session, 0: not known."""

    def __init__(
        self,
        params: RunParams,
        run: Run,
        limit: int,
        max_context: int,
        send_group: Callable[[int, Group], None],
        abort: Callable[[], None],
        *,
        is_in_step: bool = False,
        length: Length | None = None,
    ):
        self._run = run
        self._limit = limit
        self._length = length
        self._max_context = max_context
        self._send_group = send_group
        self._abort = abort
        is_muted = run.resume == "muted"
        self._stream = Stream(params.stop, limit, run.ids, is_muted=is_muted)
        self._seq = run.seq
        self._ids = list(run.ids)
        self._texts = [run.text]
        self._perf: Perf | None = None
        self._diverged: Diverged | None = None
        self._is_failed = False
        self._params = params
        self._tensors: dict[str, tuple[bytes, int, int]] = {}
        self._items = [Stream(params.stop, limit) for _ in params.prompts or ()]
        self._groups: list[list[Group]] = [[] for _ in self._items]
        self.attachments: list[bytes] = []
        self.is_aborted = False
        self.is_in_step = is_in_step
        self.is_restored = False
        self.filled = 0
        self._end_id = -1

    @property
    def session(self) -> str:
        """The session that it is a turn of, "" for none."""
        return self._run.session.id if self._run.session is not None else ""

    @property
    def ids(self) -> list[int]:
        """All tokens of the answer so far."""
        return self._ids

    def on_result(self, state: int, item: int, token_id: int, text: bytes | None, extra: dict[str, Any] | None) -> None:
        """One callback of the runtime, about an item of its batch."""
        if extra is not None:
            self._keep(extra)
        if state == ERROR:
            self._is_failed = True
        elif state == FINISH:
            self._end_id = token_id
        elif self._params.mode != "generate":
            return
        elif self._items:
            self._on_item(item, state, token_id, text)
        elif self._stream.is_over or (self.is_aborted and not self.session):
            self._abort()  # an abort may have come before the run began; families before F5 know no limit of one run
        elif self._diverged is None:
            self._on_token(state, token_id, text)
            if self.is_aborted:  # in a session this token still counts: the KV cache holds it
                self._abort()

    def _keep(self, extra: dict[str, Any]) -> None:
        if "perf" in extra:
            self._perf = Perf(**dict(zip(Perf.__struct_fields__, extra["perf"], strict=True)))
        for name in ("hidden", "logits"):
            if name in extra:
                self._tensors[name] = extra[name]

    def _on_item(self, item: int, state: int, token_id: int, text: bytes | None) -> None:
        """A token of one of several prompts; none is streamed.  A negative id says that the item is over."""
        stream = self._items[item]
        if self.is_aborted:
            self._abort()
        if token_id < 0 or stream.is_over:
            return
        group = stream.feed(token_id, text or b"", is_waiting=state == WAITING)
        if group is not None:
            self._groups[item].append(group)
        if all(one.is_over for one in self._items):
            self._abort()

    def _on_token(self, state: int, token_id: int, text: bytes | None) -> None:
        try:
            group = self._stream.feed(token_id, text or b"", is_waiting=state == WAITING)
        except Diverged as diverged:
            self._diverged = diverged
            self._abort()
            return
        if group is not None:
            self._send(group)
        if self._stream.is_stopped or (self.is_in_step and self._stream.is_over):
            self._abort()

    def _send(self, group: Group) -> None:
        self._ids.extend(group.ids)
        self._texts.append(group.text)
        self._send_group(self._seq, group)
        self._seq += 1

    def finish(self, outcome: int | RkvisorError, component: str) -> bytes | RkvisorError:
        """The run is over with *outcome*, a status or an error: the result as JSON text, or the error."""
        if isinstance(outcome, RkvisorError):
            return outcome
        if self._diverged is not None:
            text = f"cannot resume the stream: {self._diverged}"
            return ResumeDiverged(text, component=component, text=self._run.text, token_ids=self._run.ids)
        if (self._is_failed or outcome != 0) and not (self.is_aborted or self._is_over):
            what = (
                "the runtime called back with RKLLM_RUN_ERROR" if self._is_failed else f"rkllm_run returned {outcome}"
            )
            return RkllmFailure("RKLLM_INFERENCE_ERROR", what, component=component)
        try:
            return msgspec.json.encode(self._result(component))
        except RkvisorError as error:
            return error

    def turn_end(self) -> TurnEnd | None:
        """How the KV cache was left by a turn of a session; None for what is no turn, and for one without an answer."""
        if not self.session or (self.is_aborted and not self._ids):
            return None
        is_natural = self._end_id >= 0 or (self._reason(self._stream) == "stop" and not self._stream.is_stopped)
        return TurnEnd(end_id=self._end_id, is_natural=is_natural, is_restored=self.is_restored)

    @property
    def _is_over(self) -> bool:
        return all(item.is_over for item in self._items) if self._items else self._stream.is_over

    def _result(self, component: str) -> RunResult:
        group = self._stream.finish()
        if group is not None and (self._stream.is_stopped or not self.is_aborted or self.session):
            self._send(group)
        result = RunResult(
            text="".join(self._texts),
            token_ids=self._ids,
            finish_reason=self._reason(self._stream) if self._params.mode == "generate" else "stop",
            perf=self._perf,
            worker=self._run.worker,
            resumed=self._run.resumed,
            resume=self._run.quality,  # type: ignore[arg-type]
            degraded=self._run.degraded,
        )
        if self._length is not None:
            result.prompt_tokens, result.prompt_tokens_estimated = self._length.tokens, self._length.is_estimate
        if self.session:
            result.session, result.session_restored = self.session, self.is_restored
        if self._items:
            result.items = [self._item(index) for index in range(len(self._items))]
            result.text = result.items[0].text
            result.token_ids = result.items[0].token_ids
            result.finish_reason = result.items[0].finish_reason
        if self.is_aborted and self._params.mode != "generate" and self._params.mode not in self._tensors:
            result.finish_reason = "abort"
        elif self._params.mode == "hidden":
            result.hidden_states = self._tensor("hidden", component)
        elif self._params.mode == "logits":
            result.logits = self._tensor("logits", component)
        return result

    def _item(self, index: int) -> ItemResult:
        last = self._items[index].finish()
        groups = [*self._groups[index], *([last] if last is not None else [])]
        return ItemResult(
            item=index,
            text="".join(group.text for group in groups),
            token_ids=[one for group in groups for one in group.ids],
            finish_reason=self._reason(self._items[index]),
        )

    def _tensor(self, name: str, component: str) -> TensorResult:
        found = self._tensors.get(name)
        if found is None:
            raise RkllmFailure("RKLLM_INFERENCE_ERROR", f"the runtime gave no {name}", component=component)
        data, rows, columns = found
        if self._params.tensor_format == "list":
            return TensorResult(shape=[rows, columns], rows=tensors.to_lists(data, rows, columns))
        self.attachments.append(data)
        return TensorResult(shape=[rows, columns], attachment=len(self.attachments) - 1)

    def _reason(self, stream: Stream) -> Any:
        if stream.is_stopped:
            return "stop"
        if self.is_aborted:
            return "abort"
        if stream.count >= self._limit:
            return "length"
        if self.session and self.filled >= self._max_context:
            return "context"
        prompt = self._perf.prefill_tokens if self._perf is not None else 0
        if self._run.resume == "tokens":
            prompt -= len(self._run.ids)  # they are counted as generated
        if self._perf is not None and prompt + stream.count >= self._max_context:
            return "context"
        return "stop"
