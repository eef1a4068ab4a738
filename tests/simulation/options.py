"""Options of a simulated run: which store, how many workers, which faults; a seed stands for one set of them."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

MODEL, SQLITE = "model", "sqlite"

CRASH, AMBIGUOUS, BUSY, PAUSE, KILL, FREEZE, STOP, DELAY, NO_WAKE, WILD = (
    "crash", "ambiguous", "busy", "pause", "kill", "freeze", "stop", "delay", "no-wake", "wild",
)  # fmt: skip
FAULTS = (CRASH, AMBIGUOUS, BUSY, PAUSE, KILL, FREEZE, STOP, DELAY, NO_WAKE, WILD)
"""F2; F3 with an unknown outcome and with none; others go on in the middle of a call; F1; F6; F18; F11; F19; F20 with terminations, purges, rewinds."""


@dataclass(frozen=True)
class Options:
    """What a run is made of.

    Args:
        faults: which of FAULTS happen.
        rate: how often a call of the store meets one, about.
        cache_size: executions that a worker keeps; 0 replays at every turn ("suspend always").
        steps: how long the faults go on.
    """

    store: str
    workers: int
    faults: tuple[str, ...]
    rate: float
    cache_size: int
    max_activities: int
    poll_interval: float
    steps: int


def options_of(seed: int, store: str | None = None) -> Options:
    """The options of a seed.

    Args:
        store: instead of the one that the seed names.
    """
    random = Random(f"options {seed}")
    chosen = random.choice([MODEL, MODEL, MODEL, SQLITE])
    return Options(
        store=store or chosen,
        workers=random.choice([1, 1, 2, 2, 3, 4, 6, 8]),
        faults=tuple(fault for fault in FAULTS if random.random() < 0.45),
        rate=random.choice([0.01, 0.03, 0.06]),
        cache_size=random.choice([0, 1, 2, 1000]),
        max_activities=random.choice([1, 2, 8]),
        poll_interval=random.choice([0.05, 0.3, 1.0]),
        steps=random.choice([100, 200, 400]),
    )
