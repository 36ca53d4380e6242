"""One loaded model: which library, which ABI family, initialised with which parameters; how a request runs on it."""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from rkvisor.cython_ext import _rkllm
from rkvisor.cython_ext.inputs import Infer, Input
from rkvisor.protocol.errors import InvalidParams, NotSupported
from rkvisor.protocol.link import Ready, Run
from rkvisor.protocol.run import SAMPLING, RunParams
from rkvisor.worker.calls import perform
from rkvisor.worker.chat import ChatSetup
from rkvisor.worker.checks.parameters import fatal_combination
from rkvisor.worker.history import Conversation, Ear
from rkvisor.worker.loading import Prepared, refusals
from rkvisor.worker.preflight import check_machine, dimensions

NORMAL = _rkllm.CONSTANTS["LLMCallState"]["RKLLM_RUN_NORMAL"]
WAITING = _rkllm.CONSTANTS["LLMCallState"]["RKLLM_RUN_WAITING"]
FINISH = _rkllm.CONSTANTS["LLMCallState"]["RKLLM_RUN_FINISH"]
ERROR = _rkllm.CONSTANTS["LLMCallState"]["RKLLM_RUN_ERROR"]

OnResult = Callable[[int, int, int, bytes | None, dict[str, Any] | None], int | None]


class Model:
    """Initialises the runtime on construction (CannotLoad).  on_result is called on the thread of ``run``."""

    def __init__(self, prepared: Prepared, on_result: OnResult):
        started = time.monotonic()
        load = prepared.load
        self._prompt_cache: str | None = None
        self.conversation = Conversation(self)
        self.chat = ChatSetup(self, perform)
        self.runtime, self.param, self.prompts = prepared.runtime, prepared.param, prepared.prompts
        self.prompts.max_context = int(self.param.get("max_context_len", 2**31))
        tokenizer = self.prompts.callback if self.runtime.family == "F5" else None
        self._init: Callable[[], None] = lambda: self.runtime.init(
            {**load.param, "model_path": load.path}, on_result, tokenizer=tokenizer
        )
        with refusals(load):
            if load.preflight:
                check_machine(load.runtime, load.path)
            self._init()
        self.dimensions = dimensions(load.runtime, load.path, self.param, load.embedding_size, load.vocab_size)
        self.ready = Ready(
            family=self.runtime.family,
            version=prepared.version,
            functions=sorted(self.runtime.functions),
            can_force_tokens=self.runtime.can_force_tokens,
            has_tokenizer=self.prompts.has_tokenizer,
            tokenizer=self.prompts.tokenizer_source,
            chat_template=self.prompts.template_source,
            default_param=plain(prepared.defaults),
            param=plain(self.param),
            load_s=round(prepared.took_s + time.monotonic() - started, 6),
        )

    @property
    def can_sample_per_run(self) -> bool:
        """Whether a run may bring its own sampling and length: F5."""
        return self.runtime.family == "F5"

    @property
    def configured_limit(self) -> int:
        """Tokens that a run generates which names no number."""
        return int(self.param.get("max_new_tokens", 512))

    def limit(self, params: RunParams) -> int:
        """Tokens that the request may generate.  Raises InvalidParams for more than an older family can."""
        configured, wanted = self.configured_limit, params.max_new_tokens
        if wanted is None:
            return configured
        if wanted > configured and not self.can_sample_per_run:
            text = f"family {self.runtime.family} ends at the {configured} tokens that the model is configured for"
            raise InvalidParams(f"cannot generate {wanted} tokens: {text}; raise max_new_tokens in its param")
        return wanted

    def infer(self, params: RunParams, limit: int) -> Infer:
        """The infer parameters of a request.  Raises NotSupported for what the family fixes at init, or lacks."""
        image = params.multimodal.image if params.multimodal is not None else None
        if image is not None and (image.width or image.height) and self.runtime.family in ("F1", "F2"):
            raise NotSupported(f"cannot pass an image's width and height: family {self.runtime.family} has neither")
        given = {name: value for name in SAMPLING if (value := getattr(params, name)) is not None}
        common: dict[str, Any] = {"mode": params.mode, "lora": params.lora}
        if params.prompt_cache is not None:
            common |= {"prompt_cache": params.prompt_cache, "save_prompt_cache": True}
        if self.can_sample_per_run:
            sampling = {name: given.get(name, self.param[name]) for name in SAMPLING} if given else None
            return Infer(sampling=sampling, max_new_tokens=limit, **common)
        other = [name for name, value in given.items() if value != self.param.get(name)]
        if other:
            text = f"family {self.runtime.family} takes sampling at init only; set it in the model's param"
            raise NotSupported(f"cannot set {', '.join(other)} for one request: {text}")
        return Infer(**common)

    def run(self, what: Input | list[Input], params: RunParams, run: Run, limit: int, ear: Ear) -> int:
        """Run *what* to its end on this thread; the callbacks tell what it says.

        In a session it is read behind the turns before it.  Raises SessionLost where they cannot be had.
        """
        session, ids = run.session, run.ids if run.resume == "forced" else []
        if run.resume == "tokens":
            limit -= len(run.ids)  # the runtime takes them for a part of the prompt
            if limit <= 0:
                return 0
        infer = self.infer(params, limit)
        if session is None:
            self.chat.wear([], [])
            self.conversation.leave()
            self.start_over()
        else:
            self._check_history(what, params)
            infer = dataclasses.replace(infer, keep_history=True)
            self.chat.wear(session.template, session.tools)
            if not self.conversation.enter(session, ear):
                return 0
            if len(ids) >= limit and not self.is_native(limit):
                ids = ids[:-1]  # the run has to be ended in the callback of its last token
        if self.runtime.can_force_tokens and self.dimensions.n_batch == 1:
            self.runtime.force_tokens(ids)
        status = self.runtime.run(what, infer)
        if session is not None and "rkllm_get_kv_cache_size" in self.runtime.functions:
            self.conversation.size = self.runtime.get_kv_cache_size()[0]
        return status

    def resume(self, text: str, params: RunParams, limit: int) -> int:
        """Let the run that was paused go on, behind *text* where it is not empty: RKLLM takes the next run for it."""
        what: Input | list[Input] = Input(kind="prompt", prompt=text)
        return self.runtime.run(what, self.infer(params, limit))

    def is_native(self, limit: int) -> bool:
        """Whether the runtime itself ends a run after *limit* tokens; else we do."""
        return self.can_sample_per_run or limit == self.configured_limit

    def _check_history(self, what: Input | list[Input], params: RunParams) -> None:
        kind = what.kind if isinstance(what, Input) else "prompt"
        why = fatal_combination(self.runtime.family, mode=params.mode, kind=kind, keeps_history=True)
        if why is not None:
            raise NotSupported(f"cannot run {why}")
        if "rkllm_clear_kv_cache" not in self.runtime.functions:  # they came together, with F2
            text = f"family {self.runtime.family} keeps no history in its KV cache"
            raise NotSupported(f"cannot run it in a session: {text}")

    def start_over(self) -> None:
        """Clear the KV cache, but for what the prompt cache brings."""
        if "rkllm_clear_kv_cache" in self.runtime.functions:  # keep_history = 0 is no clean slate (its facts, §2)
            self.runtime.clear_kv_cache(False)
        if self._prompt_cache is not None:  # clearing took it away
            self.load_prompt_cache(self._prompt_cache)

    def reload(self) -> None:
        """Load the model anew: as it was at first, without anything that was configured.  The process ends if it
        cannot be: its successor will tell why."""
        self._prompt_cache = None
        self.runtime.destroy()
        try:
            self._init()
        except _rkllm.RkllmError as error:
            print(f"rkvisor: cannot load the model a second time: {error}", file=sys.stderr, flush=True)
            os._exit(1)

    def load_prompt_cache(self, path: str) -> None:
        """Load the file before every run, until another is loaded or it is released.

        A file that cannot be loaded leaves the one that was loaded before.
        """
        before = self._prompt_cache
        self.release_prompt_cache()  # one must be released before another is loaded (facts of the runtime, §2)
        try:
            self.runtime.load_prompt_cache(path)
        except _rkllm.RkllmError:
            if before is not None and before != path:
                self.load_prompt_cache(before)
            raise
        self._prompt_cache = path

    def release_prompt_cache(self) -> None:
        """Forget the prompt cache; nothing where none is loaded."""
        if self._prompt_cache is not None:
            self._prompt_cache = None
            self.runtime.release_prompt_cache()


def plain(param: dict[str, Any]) -> dict[str, Any]:
    """The members of *param* that travel as msgpack and JSON."""
    return {key: value for key, value in param.items() if isinstance(value, (int, float, bool, str)) or value is None}
