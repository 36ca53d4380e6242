"""The life of a worker, against a model of the world outside that is rebuilt from the effects alone."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from harness.hearing import HEARS
from rkvisor.supervisor.workers.lifecycle import (
    Answered,
    Drained,
    Effect,
    Event,
    Exited,
    IllegalTransition,
    Lifecycle,
    Phase,
    Policy,
    Prepared,
    Ready,
    Recycle,
    Stage,
    Start,
    Stop,
    TimerFired,
    Turn,
    step,
)

ACTIVE = {Phase.STARTING, Phase.RUNNING, Phase.STOPPING}
ARMS = {effect for effect in Effect if effect.name.startswith("ARM_")}
STOP_ORDER = [Effect.DRAIN, Effect.ABORT, Effect.TERM, Effect.KILL]
#: Which timer runs in a phase (and stage), where one must.
TIMER = {
    Phase.STARTING: Effect.ARM_START_TIMEOUT,
    Phase.BACKOFF: Effect.ARM_BACKOFF,
    (Phase.STOPPING, Stage.DRAIN): Effect.ARM_STOP,
    (Phase.STOPPING, Stage.ABORT): Effect.ARM_ABORT,
    (Phase.STOPPING, Stage.TERM): Effect.ARM_KILL,
    (Phase.STOPPING, Stage.KILL): Effect.ARM_KILL,
}


class World(RuleBasedStateMachine):
    """live: processes of the slot.  replacement: "", "wanted" or "ready".
    turns_back: it is being stopped, to start again.  timers: generation → which.
    deaths: unsettled, in a row.  ending: effects of this stop."""

    def __init__(self) -> None:
        super().__init__()
        self.state = Lifecycle()
        self.policy = Policy()
        self.live = 0
        self.timers: dict[int, Effect] = {}
        self.deaths = 0
        self.is_settled = False
        self.is_permanent = False
        self.ending: list[Effect] = []
        self.replacement = ""
        self.turns_back = False

    @initialize(retries=st.integers(0, 3), autorestart=st.sampled_from(["true", "false", "unexpected"]))
    def configure(self, retries: int, autorestart: str) -> None:
        self.policy = Policy(startretries=retries, autorestart=autorestart)

    def feed(self, event: Event) -> tuple[Effect, ...]:
        before = self.state
        self.state, effects = step(before, event, self.policy)
        if self.state != before:
            assert self.state.generation == before.generation + 1
        arms = [effect for effect in effects if effect in ARMS]
        assert len(arms) <= 1
        if arms:
            self.timers[self.state.generation] = arms[0]
        for effect in effects:
            self.perform(effect)
        return effects

    def perform(self, effect: Effect) -> None:
        if effect is Effect.SPAWN:
            assert self.live == 0, "a second process would share the slot"
            self.live = 1
            self.ending = []
            self.replacement = ""
            self.turns_back = False
        elif effect is Effect.PREPARE:
            assert self.replacement == "", "one replacement at a time"
            self.replacement = "wanted"
        elif effect is Effect.SWAP:
            assert self.live == 1
            assert self.replacement == "ready", "nothing to fill the slot with"
            self.replacement = ""
            self.is_settled = False
        elif effect in STOP_ORDER:
            assert self.live == 1, f"{effect.name} would reach nobody"
            if self.state.phase is Phase.STOPPING:
                self.ending.append(effect)

    @rule()
    def start(self) -> None:
        if self.state.phase in (Phase.STARTING, Phase.RUNNING, Phase.STOPPING):
            return
        assert Effect.SPAWN in self.feed(Start())
        self.deaths, self.is_permanent, self.is_settled = 0, False, False
        assert self.state.phase is Phase.STARTING

    @rule()
    @precondition(lambda self: self.state.phase in (Phase.STARTING, Phase.RUNNING, Phase.BACKOFF))
    def stop(self) -> None:
        before = self.state.phase
        self.ending = []
        self.feed(Stop())
        self.is_settled = False
        self.replacement = ""
        if before is Phase.BACKOFF:
            assert self.state.phase is Phase.STOPPED
            self.deaths = 0
        else:
            assert self.state.phase is Phase.STOPPING
            # Only a worker that runs has requests to wait for.
            assert self.ending == [Effect.DRAIN if before is Phase.RUNNING else Effect.TERM]

    @rule()
    @precondition(lambda self: self.turns_back and self.state.phase is Phase.STOPPING)
    def stop_for_good(self) -> None:
        self.feed(Stop())
        self.turns_back = False
        assert self.state.phase is Phase.STOPPING
        assert self.state.generation in self.timers, "a stop that an operator asked for has an end"

    @rule(has_room=st.booleans())
    @precondition(lambda self: self.state.phase is Phase.RUNNING)
    def recycle(self, has_room: bool) -> None:
        was_wanted, before = self.replacement, self.state
        self.ending = []
        effects = self.feed(Recycle(has_room=has_room))
        if was_wanted or not self.is_settled:
            assert (self.state, effects) == (before, ())
        elif has_room:
            assert (self.state.phase, effects) == (Phase.RUNNING, (Effect.PREPARE,))
        else:
            assert (self.state.phase, effects) == (Phase.STOPPING, (Effect.DRAIN,))
            self.turns_back, self.is_settled = True, False
        assert self.state.failures == before.failures

    @rule(is_ready=st.booleans())
    @precondition(lambda self: self.replacement)
    def prepared(self, is_ready: bool) -> None:
        was = self.replacement
        effects = self.feed(Prepared(is_ready=is_ready))
        if not is_ready:
            self.replacement = ""
            assert (self.state.turn, effects) == (Turn.NONE, ())
        elif was == "wanted":
            self.replacement = "ready"
            assert effects == (Effect.DRAIN,)
        assert self.state.phase is Phase.RUNNING

    @rule()
    @precondition(lambda self: self.state.phase is Phase.RUNNING)
    def idle(self) -> None:
        is_due, before = self.replacement == "ready", self.state
        effects = self.feed(Drained())
        assert effects == ((Effect.SWAP, Effect.ARM_SETTLE) if is_due else ())
        assert self.state.failures == before.failures
        assert (self.state.turn, self.state.settled) == (Turn.NONE, False) if is_due else self.state == before

    @rule()
    @precondition(lambda self: self.state.phase in (Phase.STARTING, Phase.STOPPING))
    def ready(self) -> None:
        before = self.state
        self.feed(Ready())
        assert self.state.phase is (Phase.RUNNING if before.phase is Phase.STARTING else Phase.STOPPING)

    @rule()
    @precondition(lambda self: self.state.phase in (Phase.RUNNING, Phase.STOPPING))
    def answered(self) -> None:
        self.feed(Answered())
        if self.state.phase is Phase.RUNNING:
            self.deaths, self.is_settled = 0, True

    @rule()
    @precondition(lambda self: self.state.phase is Phase.STOPPING)
    def drained(self) -> None:
        was_sent = Effect.TERM in self.ending
        effects = self.feed(Drained())
        assert (Effect.TERM in effects) is not was_sent, "SIGTERM is sent once, when nothing is left to wait for"

    @rule(is_expected=st.booleans(), is_permanent=st.sampled_from([False, False, False, True]))
    @precondition(lambda self: self.live)
    def exit(self, is_expected: bool, is_permanent: bool) -> None:
        before, was_turning = self.state.phase, self.turns_back
        self.live = 0
        self.replacement = ""
        stays_down = self.policy.autorestart == "false" or (self.policy.autorestart == "unexpected" and is_expected)
        effects = self.feed(Exited(is_permanent=is_permanent, is_expected=is_expected))
        after = self.state.phase
        if before is Phase.STOPPING and Effect.SPAWN in effects:
            assert was_turning, "only a recycled worker comes back by itself"
            assert after is Phase.STARTING
            self.deaths = 0
        elif before is Phase.STOPPING:
            assert not was_turning
            assert (after, effects) == (Phase.STOPPED, ())
            self.deaths = self.state.failures  # of no interest before the next start
        elif is_permanent:
            self.is_permanent = True
            assert (after, effects) == (Phase.FATAL, ())
        elif before is Phase.RUNNING and stays_down:
            assert (after, effects) == (Phase.EXITED, ())
            self.deaths = 0
        elif before is Phase.RUNNING and self.is_settled:
            assert after is Phase.STARTING, "a settled worker is replaced at once"
            self.deaths = 0
        else:
            self.deaths += 1
            assert after is (Phase.FATAL if self.deaths > self.policy.startretries else Phase.BACKOFF)
        self.is_settled = False

    @rule()
    @precondition(lambda self: self.state.generation in self.timers)
    def due_timer(self) -> None:
        before = self.state
        last = self.ending[-1] if before.phase is Phase.STOPPING else Effect.KILL
        effects = self.feed(TimerFired(before.generation))
        match before.phase:
            case Phase.RUNNING:
                self.deaths, self.is_settled = 0, True
                assert self.state.settled
            case Phase.STARTING:
                assert Effect.DUMP in effects, "what does not come up in time is ended"
                assert self.state.phase is Phase.STARTING
            case Phase.BACKOFF:
                assert self.state.phase is Phase.STARTING
            case Phase.STOPPING:
                harder = STOP_ORDER[min(STOP_ORDER.index(last) + 1, 3)]
                assert effects[0] is self.ending[-1] is harder, "each stage of a stop leads to the next harder one"

    @rule(data=st.data())
    @precondition(lambda self: any(generation != self.state.generation for generation in self.timers))
    def stale_timer(self, data: st.DataObject) -> None:
        stale = [generation for generation in self.timers if generation != self.state.generation]
        before = self.state
        assert self.feed(TimerFired(data.draw(st.sampled_from(stale)))) == ()
        assert self.state is before

    @rule(event=st.sampled_from([Start(), Stop(), Ready(), Answered(), Drained(), Recycle(True), Prepared(), Exited()]))
    def illegal(self, event: Event) -> None:
        if type(event) not in HEARS[self.state.phase]:
            with pytest.raises(IllegalTransition, match=self.state.phase.name):
                step(self.state, event, self.policy)

    @invariant()
    def a_process_lives_exactly_while_the_worker_is_active(self) -> None:
        assert self.live == (self.state.phase in ACTIVE)

    @invariant()
    def whatever_waits_has_the_right_timer(self) -> None:
        phase = self.state.phase
        if self.turns_back and self.state.stage is Stage.DRAIN:
            return  # no request is aborted for it: the watchdog ends those that hang
        wanted = TIMER.get(phase) or TIMER.get((phase, self.state.stage))
        if phase is Phase.RUNNING and not self.is_settled:
            wanted = Effect.ARM_SETTLE
        if wanted is not None:
            assert self.timers.get(self.state.generation) is wanted

    @invariant()
    def only_unsettled_deaths_in_a_row_count(self) -> None:
        if self.state.phase in (Phase.STARTING, Phase.RUNNING, Phase.BACKOFF) or (
            self.state.phase is Phase.FATAL and not self.is_permanent
        ):
            assert self.state.failures == self.deaths

    @invariant()
    def it_gives_up_after_startretries_and_not_before(self) -> None:
        if not self.is_permanent and self.state.phase is not Phase.STOPPED:
            assert (self.state.phase is Phase.FATAL) == (self.deaths > self.policy.startretries)

    @invariant()
    def only_a_running_worker_is_settled(self) -> None:
        assert self.state.settled == (self.is_settled and self.state.phase is Phase.RUNNING)

    @invariant()
    def a_stop_grows_harder_and_never_skips_the_signal(self) -> None:
        order = [STOP_ORDER.index(effect) for effect in self.ending]
        assert order == sorted(order)
        assert Effect.KILL not in self.ending or Effect.TERM in self.ending


class TestWorld(World.TestCase):
    settings = settings(max_examples=150, stateful_step_count=50)
