"""How the disturbed request of a scenario must end, and whether an answer is what it must be.  Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from chaos.schedule import ERRORS, RUN_PHASES, SIGNALS, UNLIMITED, Scenario

#: Ends of a request: the undisturbed text, or an error.
TEXT, POISON, RUNTIME_ERROR = "the undisturbed text", "POISON_REQUEST", "an error of RKLLM"


@dataclass(frozen=True, slots=True)
class Rule:
    """end: one of the above.  resumed: how often, or None where that is open.  may_refuse: whether a retryable
    refusal may come first, because the model is damaged and not the request."""

    end: str
    resumed: int | None = 0
    may_refuse: bool = False


#: (kind of fault, does it strike for ever) → rule, for faults that strike while the request runs.
_IN_RUN = {
    ("deadly", False): Rule(TEXT, resumed=1),
    ("deadly", True): Rule(POISON),
    ("error", False): Rule(RUNTIME_ERROR),
    ("error", True): Rule(RUNTIME_ERROR),
    ("harmless", False): Rule(TEXT),
    ("harmless", True): Rule(TEXT),
}
#: A signal from outside: a request is carried on wherever it is; how often depends on the moment.
_SIGNALLED = Rule(TEXT, resumed=None, may_refuse=True)
#: Faults of init and destroy: the request that armed them is not their victim.
_ARMING = Rule(TEXT)
#: Requests that run while a model is damaged by somebody else's fault.
BYSTANDER_OF_MODEL = Rule(TEXT, resumed=None, may_refuse=True)
#: Requests that run beside a disturbed one, in a process of their own.
BYSTANDER = Rule(TEXT)


def rule_of(scenario: Scenario) -> Rule:
    """The rule for the disturbed request."""
    if scenario.kind in SIGNALS:
        return _SIGNALLED
    if scenario.phase not in RUN_PHASES:
        return _ARMING
    sort = "deadly" if scenario.is_deadly else "error" if scenario.kind in ERRORS else "harmless"
    return _IN_RUN[sort, scenario.times == UNLIMITED]


def bystander_rule(scenario: Scenario) -> Rule:
    """The rule for the others."""
    is_own = scenario.kind not in SIGNALS and scenario.phase in RUN_PHASES
    return BYSTANDER if is_own else BYSTANDER_OF_MODEL


def marker(scenario: Scenario, key: str) -> str:
    """The fault markers that go in front of the prompt; none for a signal.  key: counts what strikes."""
    if scenario.kind in SIGNALS:
        return ""
    words = [scenario.kind, f"at={scenario.phase}"]
    if scenario.phase in RUN_PHASES:
        words.append(f"after={scenario.after}")
    if scenario.kind == "oom":
        words.append(f"bytes={8 << 20}")
    if scenario.kind == "leak":
        words += ["bytes=16384", f"where={scenario.where}"]
    if scenario.kind == "slow":
        words.append(f"ms={scenario.ms}")
    times = "" if scenario.times == UNLIMITED else " times=1"
    return "".join(f"[[sim:{' '.join(words)}{times} key={key}{n}]]" for n in range(strikes(scenario)))


def strikes(scenario: Scenario) -> int:
    """How many markers a request carries.  Four deaths in init use up the retries of a worker; two deaths of a reserve
    are one short of the number at which no more are started.  A hang in init takes the whole budget each time."""
    if scenario.phase != "init" or not scenario.storm or scenario.kind == "hang":
        return 1
    return 4 if scenario.reserve == "spare" else 2


@dataclass(slots=True)
class Heard:
    """What a client heard of one request.  tokens: params of the notifications.  ends: responses, one is right."""

    is_stream: bool
    tokens: list[dict[str, Any]] = field(default_factory=list)
    ends: list[dict[str, Any]] = field(default_factory=list)

    @property
    def error(self) -> dict[str, Any] | None:
        """The error object it ended with."""
        found: dict[str, Any] | None = self.ends[0].get("error") if self.ends else None
        return found

    @property
    def is_refusal(self) -> bool:
        """Whether it says: ask again."""
        return self.error is not None and bool(self.error["data"]["retryable"]) and not self.tokens


def problems_of(heard: Heard, rule: Rule, twin: dict[str, Any]) -> list[str]:
    """What is wrong with what was heard.  twin: the result of the undisturbed run."""
    if len(heard.ends) != 1:
        return [f"answered {len(heard.ends)} times"]
    problems = _stream_problems(heard, twin["text"])
    if rule.end != TEXT:
        return problems + _error_problems(heard, rule)
    if heard.error is not None:
        return [*problems, f"ended with {heard.error['code']} {heard.error['message']}"]
    result = heard.ends[0]["result"]
    for name in ("text", "token_ids", "finish_reason"):
        if result[name] != twin[name]:
            problems.append(f"{name} is {result[name]!r} and not {twin[name]!r}")
    if heard.is_stream and "".join(token["text"] for token in heard.tokens) != result["text"]:
        problems.append("the texts of the stream are not the result's text")
    if rule.resumed is not None and result["resumed"] != rule.resumed:
        problems.append(f"resumed {result['resumed']} times and not {rule.resumed}")
    if result["resume"] not in (None, "exact"):
        problems.append(f"resume is {result['resume']!r}")
    return problems


def _stream_problems(heard: Heard, text: str) -> list[str]:
    problems = []
    if heard.tokens and not heard.is_stream:
        problems.append("tokens came without a stream")
    sequence = [token["seq"] for token in heard.tokens]
    if sequence != list(range(len(sequence))):
        problems.append(f"the stream has gaps or repeats: {sequence}")
    streamed = "".join(token["text"] for token in heard.tokens)
    if not text.startswith(streamed):
        problems.append(f"the stream {streamed!r} is no beginning of {text!r}")
    return problems


def _error_problems(heard: Heard, rule: Rule) -> list[str]:
    error = heard.error
    if error is None:
        return [f"succeeded where {rule.end} was due"]
    data = error["data"]
    is_right = data.get("source") == "RKLLM" if rule.end == RUNTIME_ERROR else data["name"] == rule.end
    problems = [] if is_right else [f"ended with {data['name']} ({error['message']}) where {rule.end} was due"]
    streamed = "".join(token["text"] for token in heard.tokens)
    if rule.end == POISON and heard.is_stream and data.get("text") != streamed:
        problems.append(f"the error says that {data.get('text')!r} was streamed, and not {streamed!r}")
    return problems
