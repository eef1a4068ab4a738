"""What must be true when all is over: the invariants, and the model's right answer for each program."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Container
from typing import TYPE_CHECKING, Any

import invariants
from invariants import HubState

from flask_durable.core.events import ExecutionResumed, ExecutionSuspended
from flask_durable.core.execution import Execution
from flask_durable.core.status import RuntimeStatus
from flask_durable.queries import Queries
from flask_durable.storage.interface import InstanceRecord, StartInstance
from flask_durable.telemetry import Telemetry
from tests.properties.engine_run import EngineRun, Journal, _end_of
from tests.properties.interpreter import orchestrator
from tests.properties.simulation import check_confluent
from tests.properties.verdict import check as check_history
from tests.properties.verdict import same_end

from .options import WILD
from .stores import state_of

if TYPE_CHECKING:
    from .world import World

FROM_OUTSIDE = (ExecutionSuspended, ExecutionResumed)


def check(world: World) -> None:
    """Check a world in which all has ended."""
    state = state_of(world.truth._base)
    check_state(state, world.truth.rewound_all)
    check_nothing_lost(world, set(state.instances))
    check_rest(world, state)
    if WILD in world.options.faults:
        check_wild(world)
    else:
        Tame(world).check()


def execution_of(_record: InstanceRecord) -> Execution:
    return Execution(orchestrator)


def check_state(state: HubState, rewound: Container[str], *, is_quick: bool = False) -> None:
    """The invariants that stored rows show: I2 to I7, I11.

    Args:
        state: the rows.
        rewound: instances that were rewound; if alone, their parents have been told of an end that is none any more.
        is_quick: do not replay.
    """
    found = invariants.check(state) if is_quick else invariants.check(state, execution_of)
    found = [each for each in found if each.invariant != "I11" or each.instance_id not in rewound]
    if rewound:  # a child that is rewound alone tells its parent twice, which takes no notice of the second time
        found = [each for each in found if "another one is on its way" not in each.text]
    assert not found, "; ".join(map(str, found[:3]))


def check_nothing_lost(world: World, present: set[str]) -> None:
    """What was acknowledged was carried out (I1)."""
    purges = WILD in world.options.faults
    raised = {data for each in world.truth.raised.values() for data in each}
    for command in world.acknowledged:
        if isinstance(command, StartInstance):
            assert command.instance_id in world.truth.started, f"the start of {command.instance_id} was acknowledged and lost (I1)"
            assert purges or command.instance_id in present, f"{command.instance_id} is gone (I1)"
        elif getattr(command, "data", None) is not None:
            assert command.data in raised, f"event {command.data} was acknowledged and lost (I1)"  # type: ignore[union-attr]


def check_rest(world: World, state: HubState) -> None:
    """All has ended, nothing is left that nobody will ever look at (I6), and what is there can be shown (I13)."""
    failed = {record.instance_id for record in state.instances.values() if record.status is RuntimeStatus.FAILED}
    assert not state.messages.keys() - failed, f"messages are left: {state.messages.keys() - failed}"
    assert not state.calls, f"calls are left: {state.calls}"
    assert not state.workers, f"workers are left: {state.workers}"
    queries = Queries(world.truth, world.registry, Telemetry(is_enabled=False))
    for record in state.instances.values():
        assert record.worker_id is None, f"{record.instance_id} is still held by {record.worker_id}"
        assert record.status.is_final, f"{record.instance_id} is {record.status}"
        status = queries.get_status(record.instance_id, show_history=True)
        assert status is not None
        json.dumps([status.input, status.output, status.custom_status])


def make_journal(world: World) -> Journal:
    journal = Journal(commits=world.truth.commits)
    journal.sort()
    return journal


def check_wild(world: World) -> None:
    """Where instances are terminated, purged and rewound: each turn is what the model says, as far as it came."""
    journal = make_journal(world)
    for instance_id, executions in journal.executions.items():
        if instance_id in world.truth.rewound_all:
            continue
        for execution_id in executions:
            turns = journal.turns[instance_id, execution_id]
            # What a rewound parent asks for again may be deleted and made again meanwhile, as the same execution
            if getattr(turns[0].events[0], "parent_instance_id", None) in world.truth.rewound_all:
                continue
            model = check_history(journal.history(instance_id, execution_id)).model
            if turns[-1].status.is_final or turns[-1].next_generation is not None:
                same_end(_end_of(turns[-1], model.end), model.end)


class Tame(EngineRun):
    """The checks of runs on the real engine, for a world in which nobody terminates, purges or rewinds."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.journal = make_journal(world)
        self.client: Any = Queries(world.truth, world.registry, Telemetry(is_enabled=False))
        self.roots = world.roots
        self.raised = defaultdict(list, {key: [json.loads(each)[1] for each in data] for key, data in world.truth.raised.items()})
        self.unread = {}

    def check(self) -> None:
        for instance_id in list(self.journal.executions):
            try:
                self.check_instance(instance_id)
            except AssertionError as error:
                raise AssertionError(f"{instance_id}: {error}") from error
        for instance_id, program in self.roots.items():
            status = self.client.get_status(instance_id)
            failure = status.failure_details
            check_confluent(program, ("Failed", failure.type_name.rpartition(".")[2], failure.message) if failure else ("Completed", status.output))

    def check_stored(self, instance_id: str, history: Any) -> None:
        """What is stored is what was committed."""
        stored = self.stored(instance_id)
        own = [(each.at, each.event) for each in stored if not isinstance(each.event, FROM_OUTSIDE)]
        assert own == [(each.at, each.event) for each in history], "what is stored is not what was committed"
