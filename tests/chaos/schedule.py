"""The schedule of faults: a pure function of the seed.  Scenario K of a seed is the same whatever the count.

Each pass deals every cell of the matrix (kind × phase × resume × streaming × concurrency) once, every kind spread
evenly over the pass, so that a slice of some dozens already meets each kind; what is not part of the cell is drawn.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass

#: Faults of the simulator that end the process, or make it useless until it is ended.
KILLERS = ("segv", "abrt", "fpe", "bus", "ill", "stack", "exit", "oom", "hang")
ERRORS = ("error", "errcb")
HARMLESS = ("slow", "nofinish", "utf8", "leak", "fdleak")
#: Signals sent to worker processes from outside.
SIGNALS = ("SIGKILL", "SIGSTOP", "SIGSEGV")
#: kill -9 of rkvisord itself.
BEHEADING = "kill-9"
KINDS = (*KILLERS, *ERRORS, *HARMLESS, *SIGNALS, BEHEADING)

RUN_PHASES = ("prefill", "token", "callback")
MODEL_PHASES = ("init", "destroy")
#: When a signal from outside strikes; ``reserve``: the process that shall replace the next one that dies; ``loading``:
#: the one that does, while it loads.
SIGNAL_PHASES = ("prefill", "token", "idle", "reserve", "loading")
#: What rkvisord was doing when it was killed; ``hung`` and ``stopped`` are states of its workers then.
BEHEADING_PHASES = ("prefill", "token", "hung", "stopped")
#: What means nothing where no token is generated; the simulator refuses such a marker.
_TOKEN_ONLY = ("nofinish", "utf8")

RESUMES = ("forced", "muted")
CLIENTS = (1, 4)
LENGTHS = (16, 40)
PROMPTS = (
    "tell me a story",
    "zähle bis zehn, bitte",
    "何か話して",
    "the quick brown fox jumps over the lazy dog",
    'write {"json": [1, 2]} twice',
    "х",
)
#: Delays of ``slow`` per token: within the budget of a token, and beyond it (milliseconds).
SLOW_MS, TOO_SLOW_MS = (2, 8), 2500
UNLIMITED = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One fault and its surroundings.

    resume, reserve: which of the four models.  clients: requests at the same time; the first of them is disturbed.
    after: tokens before the fault.  times: how often it strikes, or UNLIMITED.  length: tokens of the answers.
    prompt: index into PROMPTS.  storm: a signal hits every worker of the model; a fault of init strikes four times.
    """

    number: int
    kind: str
    phase: str
    resume: str
    stream: bool
    clients: int
    reserve: str
    after: int
    times: int
    length: int
    prompt: int
    storm: bool
    ms: int
    where: str

    @property
    def model(self) -> str:
        """Its name in the configuration."""
        return f"{self.resume}-{self.reserve}"

    @property
    def is_deadly(self) -> bool:
        """Whether a process that meets the fault has to be replaced."""
        return self.kind in KILLERS or (self.kind == "slow" and self.ms >= TOO_SLOW_MS)

    def line(self) -> str:
        """All of it in one line."""
        facts = asdict(self)
        return " ".join([f"#{facts.pop('number')}", *(f"{name}={value}" for name, value in facts.items())])


Cell = tuple[str, str, str, bool, int]


def phases_of(kind: str) -> tuple[str, ...]:
    """The phases in which *kind* can strike."""
    if kind == BEHEADING:
        return BEHEADING_PHASES
    if kind in SIGNALS:
        return SIGNAL_PHASES
    return RUN_PHASES if kind in _TOKEN_ONLY else (*RUN_PHASES, *MODEL_PHASES)


def matrix() -> list[Cell]:
    """Every cell: (kind, phase, resume, stream, clients)."""
    return [
        (kind, *rest) for kind in KINDS for rest in itertools.product(phases_of(kind), RESUMES, (False, True), CLIENTS)
    ]


def _deal(chance: random.Random) -> list[Cell]:
    """The matrix in a random order in which each kind is spread evenly."""
    placed: list[tuple[float, Cell]] = []
    for kind in KINDS:
        cells = [cell for cell in matrix() if cell[0] == kind]
        chance.shuffle(cells)
        placed += [((place + chance.random()) / len(cells), cell) for place, cell in enumerate(cells)]
    return [cell for _, cell in sorted(placed)]


def schedule(seed: int) -> Iterator[Scenario]:
    """The scenarios of *seed*, without end."""
    chance = random.Random(seed)
    cells = itertools.chain.from_iterable(_deal(chance) for _ in itertools.count())
    for number, cell in enumerate(cells):
        yield _draw(number, cell, random.Random(f"{seed}:{number}"))


def _draw(number: int, cell: Cell, chance: random.Random) -> Scenario:
    kind, phase, resume, stream, clients = cell
    length = chance.choice(LENGTHS)
    ms = chance.choice((*SLOW_MS, TOO_SLOW_MS)) if kind == "slow" else 0
    times = chance.choices((1, UNLIMITED), (3, 1))[0] if phase in RUN_PHASES else 1
    first, last = (1, length) if phase == "callback" else (0, length - 1)
    if kind == "slow" or (phase == "callback" and times == UNLIMITED):
        last -= 1  # there must be a token behind it to delay, or to strike at again
    return Scenario(
        number=number,
        kind=kind,
        phase=phase,
        resume=resume,
        stream=stream,
        clients=clients,
        reserve=chance.choice(("spare", "standby")),
        after=chance.randint(first, last),
        times=times,
        length=length,
        prompt=chance.randrange(len(PROMPTS)),
        storm=chance.random() < 0.3,
        ms=ms,
        where=chance.choice(("heap", "mmap", "shmem", "memfd")),
    )
