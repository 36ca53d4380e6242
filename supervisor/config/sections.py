"""What can be configured: one frozen class a section, with defaults and limits."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from rkvisor.protocol.limits import MAX_MESSAGE_BYTES

Count = Annotated[int, Meta(ge=0, le=256)]
Seconds = Annotated[float, Meta(ge=0, le=86_400)]


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the file."""


class SupervisorSection(Section, frozen=True):
    """answer_ttl_s, answer_bytes: kept answers.  poison_ttl_s: how long a poisonous payload is refused.
    fault_window_s: deaths of several workers within it charge no request.
    budget_scale: multiplies the watchdog's budgets, for slow machines and for tests.
    store_prompts: keep the payloads of dead letters in the state directory, not only their digests."""

    run_dir: str = "run"
    state_dir: str = "state"
    log_level: Literal["trace", "debug", "info", "warning", "error"] = "info"
    answer_ttl_s: Seconds = 300.0
    answer_bytes: Annotated[int, Meta(ge=0)] = 64 * 1024 * 1024
    poison_ttl_s: Seconds = 3600.0
    fault_window_s: Seconds = 2.0
    budget_scale: Annotated[float, Meta(gt=0, le=1000)] = 1.0
    store_prompts: bool = False


class ListenSection(Section, frozen=True):
    """clients, events: ZeroMQ endpoints.  admin: one ipc endpoint."""

    clients: list[str] = msgspec.field(default_factory=lambda: ["ipc://run/client.sock"])
    admin: str = "ipc://run/private/admin.sock"
    events: list[str] = msgspec.field(default_factory=lambda: ["ipc://run/events.sock"])


class LimitsSection(Section, frozen=True):
    """in_flight, outbox_bytes: per connection.  message_bytes: of one frame.  sessions: of one principal.
    session_turns, session_bytes, session_tokens, session_idle_s: of one session."""

    in_flight: Annotated[int, Meta(ge=1, le=100_000)] = 1024
    outbox_bytes: Annotated[int, Meta(ge=4096)] = 8 * 1024 * 1024
    message_bytes: Annotated[int, Meta(ge=4096)] = MAX_MESSAGE_BYTES
    connections: Annotated[int, Meta(ge=1, le=100_000)] = 4096
    sessions: Annotated[int, Meta(ge=0, le=100_000)] = 64
    session_turns: Annotated[int, Meta(ge=1, le=1_000_000)] = 1000
    session_bytes: Annotated[int, Meta(ge=1024, le=64 * 1024 * 1024)] = 1024 * 1024
    session_tokens: Annotated[int, Meta(ge=1, le=100_000_000)] = 131_072
    session_idle_s: Annotated[float, Meta(gt=0, le=604_800)] = 3600.0


class DiagnosticsSection(Section, frozen=True):
    """enabled: serve the ``test_*`` methods."""

    enabled: bool = False


class MemorySection(Section, frozen=True):
    """interval_s: between two samples of a process that does nothing.  request_interval_s: between two after requests,
    in the long run.  look_interval_s: between two looks at the mappings of a process.  tracker: log every native buffer
    that a runtime is given, one file a worker."""

    interval_s: Annotated[float, Meta(ge=0.05, le=3600)] = 5.0
    request_interval_s: Annotated[float, Meta(ge=0.01, le=3600)] = 1.0
    look_interval_s: Annotated[float, Meta(ge=1, le=86_400)] = 300.0
    tracker: bool = False


class ModelSection(Section, frozen=True):
    """One model and its workers.

    param: RKLLMParam's members by the vendor's names.  restart_intensity, restart_period_s: as in OTP, 0 is off.
    depends_on: models that run before this one starts.  serialise_init: one init at a time among the models that say
    so; by default those of the NPU.  lora_dir, prompt_cache_dir: where the files lie that requests may name; none
    without them.  embedding_size, vocab_size: of a model whose file does not tell, to check tensors and ids against.
    preflight: refuse to load what machine, memory or parameters would make the runtime fail at (``worker/checks``).
    tokenizer, chat_template: files, where the model's own does not bring them.
    max_requests, max_rss, recycle_on_leak: when a worker gets a new process, gracefully; 0 is never.
    recycle_min_s: no process is replaced for its memory before it is so old.  recycle_jitter: share of the limits.
    memory_limit: RLIMIT_DATA of a process, 0 is none.  Sizes are bytes once they are read.
    """

    runtime: Literal["sim", "llama", "rknpu"]
    path: Annotated[str, Meta(min_length=1)]
    library: str | None = None
    abi: Literal["F1", "F2", "F3", "F4", "F5"] | None = None
    workers: Annotated[int, Meta(ge=1, le=256)] = 1
    spares: Count = 1
    standby: Count = 0
    fallback: str | None = None
    faults: bool = False
    force_tokens: bool = True
    autostart: bool = True
    autorestart: Literal["true", "false", "unexpected"] | bool = "true"
    exitcodes: list[int] = msgspec.field(default_factory=lambda: [0])
    startsecs: Seconds = 1.0
    startretries: Annotated[int, Meta(ge=0, le=1000)] = 3
    stopwaitsecs: Seconds = 10.0
    backoff_initial_s: Annotated[float, Meta(gt=0, le=3600)] = 0.1
    backoff_factor: Annotated[float, Meta(ge=1, le=100)] = 2.0
    backoff_max_s: Annotated[float, Meta(gt=0, le=86_400)] = 5.0
    backoff_jitter: Annotated[float, Meta(ge=0, le=1)] = 0.1
    restart_intensity: Annotated[int, Meta(ge=0, le=10_000)] = 0
    restart_period_s: Annotated[float, Meta(gt=0, le=86_400)] = 60.0
    depends_on: list[str] = msgspec.field(default_factory=list)
    serialise_init: bool | None = None
    load_timeout_s: Annotated[float, Meta(gt=0, le=86_400)] | None = None
    first_token_timeout_s: Annotated[float, Meta(gt=0, le=86_400)] | None = None
    token_timeout_s: Annotated[float, Meta(gt=0, le=86_400)] = 10.0
    control_timeout_s: Annotated[float, Meta(gt=0, le=86_400)] = 5.0
    pause_timeout_s: Annotated[float, Meta(gt=0, le=86_400)] = 300.0
    breaker_failures: Annotated[int, Meta(ge=1, le=1000)] = 3
    breaker_open_s: Seconds = 30.0
    health_threshold: Annotated[float, Meta(ge=0, le=0.8)] = 0.0
    degraded_mode: Literal["fallback", "refuse", "announce"] = "fallback"
    max_queue: Annotated[int, Meta(ge=1, le=1_000_000)] = 256
    priority: Annotated[int, Meta(ge=0, le=999)] = 999
    lora_dir: str | None = None
    prompt_cache_dir: str | None = None
    embedding_size: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    vocab_size: Annotated[int, Meta(ge=0, le=100_000_000)] = 0
    preflight: bool = True
    max_requests: Annotated[int, Meta(ge=0, le=1_000_000_000)] = 0
    max_rss: int | str = 0
    recycle_on_leak: bool = False
    recycle_min_s: Annotated[float, Meta(ge=0, le=86_400)] = 30.0
    recycle_jitter: Annotated[float, Meta(ge=0, le=0.5)] = 0.1
    memory_limit: int | str = 0
    tokenizer: Annotated[str, Meta(min_length=1)] | None = None
    chat_template: Annotated[str, Meta(min_length=1)] | None = None
    param: dict[str, int | float | bool] = {}


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """The whole configuration, paths absolute.  file: where it was read."""

    file: str
    supervisor: SupervisorSection
    listen: ListenSection
    limits: LimitsSection
    diagnostics: DiagnosticsSection
    memory: MemorySection
    models: dict[str, ModelSection]
