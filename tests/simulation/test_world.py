"""The simulated world itself: it ends when all has ended, and lets nothing pass for a simulated fault that is none."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from flask_durable.core.status import RuntimeStatus
from flask_durable.errors import StoreUnavailableError
from flask_durable.storage.interface import Rewind
from tests.properties.programs import Activity, Await, Program, Raise

from .options import MODEL, WILD, options_of
from .run import finish
from .stores import close
from .surroundings import SimTicker, WrongError
from .world import World

FAILING = Program((Await(Activity("a", 0)), Raise("no")))


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def make_world(kind: type[World] = World) -> World:
    return kind(0, replace(options_of(0, MODEL), faults=(WILD,), workers=1, steps=20), (FAILING, FAILING))


class LateWorld(World):
    """All has ended; but a worker has just been given a rewind, and carries it out while it ends."""

    is_rewound = False

    def live(self) -> list[str]:
        live = super().live()
        if not (live or self.has_faults or self.to_start or self.is_rewound):
            self.is_rewound = True
            command = Rewind("p0")
            self.waiting.append((self.workers[0].engine.submit(command), command))
        return live


def test_what_a_worker_carries_out_while_it_ends_is_run_by_the_next_one() -> None:  # F18, G4
    world = make_world(LateWorld)
    finish(world)
    assert world.truth.counts["Rewind"] == 1
    assert world.truth.rewound_all == {"p0"}
    assert world.truth.get_instance("p0").status is RuntimeStatus.FAILED
    assert not world.waiting
    close(world.truth._base)


def test_a_tick_may_fail_for_a_simulated_fault_only() -> None:
    world = make_world()
    ticker = SimTicker(world)

    def refuse(error: Exception) -> Any:
        raise error

    ticker.run([0, 1, lambda: refuse(StoreUnavailableError("simulated"))])
    with pytest.raises(WrongError, match="AttributeError"):
        ticker.run([0, 1, lambda: refuse(AttributeError("grow"))])
    assert world.failure is not None
    close(world.truth._base)
