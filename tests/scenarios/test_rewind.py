"""Rewind: failed instances run on from where they were sound."""

from __future__ import annotations

import threading
from collections import Counter
from datetime import timedelta

import pytest
from support import Ledger, event_names, finish, has_status, look, run, until

from flask_durable import (
    DurableError,
    InstanceFilter,
    InstanceFinishedError,
    InstanceNotFailedError,
    InstanceNotFoundError,
    RetryPolicy,
    RuntimeStatus,
    SubOrchestrationFailedError,
    TaskFailedError,
    WaitTimeoutError,
    current_activity,
)

FAILED = RuntimeStatus.FAILED


class World:
    """What activities do, in whichever process: each writes down its calls, and those named fail until they are mended."""

    def __init__(self, ledger, folder):
        self.ledger = ledger
        self.folder = folder
        folder.mkdir()

    @property
    def calls(self):
        return Counter(self.ledger.read())

    def __call__(self, name):
        self.ledger.write(name)
        if (self.folder / name).exists():
            raise ValueError(f"{name} is broken")
        return name.upper()

    def breaks(self, *names):
        for name in names:
            (self.folder / name).touch()

    def mend(self, *names):
        for name in names or [path.name for path in self.folder.iterdir()]:
            (self.folder / name).unlink()


@pytest.fixture
def empty_world(ledger, tmp_path):
    return World(ledger, tmp_path / "broken")


@pytest.fixture
def world(durable, empty_world):
    @durable.activity
    def do(name):
        return empty_world(name)

    return empty_world


def failed(durable, orchestrator, input=None, **options):
    """The id of an instance that has failed."""
    status = run(durable, orchestrator, input, **options)
    assert status.runtime_status is FAILED, status.output
    return status.instance_id


def rewound(durable, instance_id, reason=None):
    """The next outcome after a rewind."""
    durable.client.rewind(instance_id, reason)
    return finish(durable, instance_id)


def rewinds_of(durable, instance_id):
    return [each.event for each in durable.client.history(instance_id).events if type(each.event).__name__ == "ExecutionRewound"]


# ---------------------------------------------------------------- what can be rewound


def test_only_a_failed_instance_can_be_rewound(durable, world):  # REW-1
    durable.start_worker()
    with pytest.raises(InstanceNotFoundError):
        durable.client.rewind("nobody")
    instance_id = durable.client.start("wait_for_go")
    durable.client.wait_for_start(instance_id, timeout=10)
    for word in ("Running", "Suspended"):
        with pytest.raises(InstanceNotFailedError, match=f"is {word}; only one that is Failed can be rewound"):
            durable.client.rewind(instance_id)
        durable.client.suspend(instance_id)
    durable.client.terminate(instance_id)
    with pytest.raises(InstanceNotFailedError, match="Terminated"):
        durable.client.rewind(instance_id)
    completed = run(durable, "wait_for_nothing")
    with pytest.raises(InstanceNotFailedError, match="Completed"):
        durable.client.rewind(completed.instance_id)


@pytest.fixture
def durable(durable):
    @durable.orchestrator
    def wait_for_nothing(ctx):
        return "nothing"

    @durable.orchestrator
    def steps(ctx, names):
        results = []
        for name in names:
            results.append((yield ctx.call_activity("do", name)))
        return results

    return durable


def test_a_failed_activity_is_run_again_and_successful_ones_are_not(durable, world):  # REW-3, REW-5, rule 45
    # Given an instance that failed at its second step
    durable.start_worker()
    world.breaks("b")
    instance_id = failed(durable, "steps", ["a", "b", "c"])
    before = durable.client.history(instance_id).events

    # When what it needs works again, and it is rewound
    world.mend()
    status = rewound(durable, instance_id, {"ticket": 7})

    # Then it goes on as if nothing had been
    assert (status.runtime_status, status.output) == (RuntimeStatus.COMPLETED, ["A", "B", "C"])
    assert world.calls == {"a": 1, "b": 2, "c": 1}
    after = durable.client.history(instance_id).events
    assert after[: len(before)] == before
    assert [event.reason for event in rewinds_of(durable, instance_id)] == ['{"ticket":7}']


def test_from_the_call_on_it_is_running_without_a_failure(durable, world):  # REW-2
    durable.start_worker()
    world.breaks("a")
    instance_id = failed(durable, "steps", ["a"])
    assert look(durable, instance_id).failure_details is not None
    durable.stop_worker()
    durable.client.rewind(instance_id)
    status = look(durable, instance_id)
    assert (status.runtime_status, status.output, status.failure_details, status.completed_time) == (RuntimeStatus.RUNNING, None, None, None)
    with pytest.raises(WaitTimeoutError):  # who waits does not get the old failure
        durable.client.wait_for_completion(instance_id, timeout=0.05)
    world.mend()
    durable.start_worker()
    assert finish(durable, instance_id).runtime_status is RuntimeStatus.COMPLETED


def test_one_that_fails_again_can_be_rewound_again(durable, world):  # REW-1
    durable.start_worker()
    world.breaks("a", "b")
    instance_id = failed(durable, "steps", ["a", "b"])
    assert rewound(durable, instance_id).runtime_status is FAILED
    world.mend("a")
    assert rewound(durable, instance_id).runtime_status is FAILED
    assert rewound(durable, instance_id).runtime_status is FAILED
    world.mend()
    assert rewound(durable, instance_id).output == ["A", "B"]
    assert world.calls == {"a": 3, "b": 3}
    assert len(rewinds_of(durable, instance_id)) == 4


def test_of_two_rewinds_at_once_one_is_told_so(durable, world):  # REW-1
    durable.start_worker()
    world.breaks("a")
    instance_id = failed(durable, "steps", ["a"])
    durable.stop_worker()
    errors = []

    def rewind():
        try:
            durable.client.rewind(instance_id)
        except InstanceNotFailedError as error:
            errors.append(error.status)

    threads = [threading.Thread(target=rewind) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert errors == ["Running"] * 3
    world.mend()
    durable.start_worker()
    assert finish(durable, instance_id).output == ["A"]


def test_rewind_and_purge_at_once_leave_the_one_or_the_other(durable, world):
    durable.start_worker()
    world.breaks("a")
    for _ in range(5):
        instance_id = failed(durable, "steps", ["a"])
        outcomes = []

        def attempt(action, instance_id=instance_id, outcomes=outcomes):
            try:
                outcomes.append(action(instance_id))
            except DurableError as error:
                outcomes.append(type(error).__name__)

        threads = [threading.Thread(target=attempt, args=(action,)) for action in (durable.client.rewind, durable.client.purge)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        if look_or_none(durable, instance_id) is None:
            assert 1 in outcomes
        else:
            assert set(outcomes) <= {None, "InstanceNotFinishedError"}
            assert finish(durable, instance_id).runtime_status is FAILED


def look_or_none(durable, instance_id):
    return durable.client.get_status(instance_id)


# ---------------------------------------------------------------- retries and handled failures


def test_a_call_with_retries_gets_all_its_attempts_anew(durable, world, tmp_path):  # rule 45, RTY-1
    attempts = Ledger(tmp_path / "attempts")

    @durable.activity
    def flaky(name):
        attempts.write((current_activity.attempt, current_activity.idempotency_key))
        if len(attempts) < 5:
            raise ValueError("not yet")
        return "done"

    @durable.orchestrator
    def retries(ctx):
        policy = RetryPolicy(first_retry_interval=0.01, max_number_of_attempts=3, retry_timeout=30)
        return [(yield ctx.call_activity("do", "before")), (yield ctx.call_activity(flaky, "x", retry_policy=policy))]

    durable.start_worker()
    instance_id = failed(durable, retries)
    assert rewound(durable, instance_id).output == ["BEFORE", "done"]
    assert [number for number, _ in attempts.read()] == [1, 2, 3, 1, 2]
    assert len({key for _, key in attempts.read()}) == 1
    assert world.calls["before"] == 1


def test_a_failure_that_was_handled_stays_handled(durable, world):  # rule 45
    @durable.orchestrator
    def handles(ctx):
        try:
            yield ctx.call_activity("do", "first")
        except TaskFailedError:
            yield ctx.call_activity("do", "instead")
        return (yield ctx.call_activity("do", "second"))

    durable.start_worker()
    world.breaks("first", "second")
    instance_id = failed(durable, handles)
    world.mend()
    assert rewound(durable, instance_id).output == "SECOND"
    assert world.calls == {"first": 1, "instead": 1, "second": 2}


def test_a_step_in_a_try_block_whose_error_is_raised_again_is_redone_without_its_compensation(durable, world):  # rule 45
    @durable.orchestrator
    def compensates(ctx):
        reserved = yield ctx.call_activity("do", "reserve")
        try:
            charged = yield ctx.call_activity("do", "charge")
        except TaskFailedError as error:
            yield ctx.call_activity("do", "release")
            raise RuntimeError("the order failed") from error
        return [reserved, charged]

    durable.start_worker()
    world.breaks("charge")
    instance_id = failed(durable, compensates)
    assert look(durable, instance_id).output == "the order failed"
    assert rewound(durable, instance_id).runtime_status is FAILED
    assert world.calls == {"reserve": 1, "charge": 2, "release": 2}
    world.mend()
    assert rewound(durable, instance_id).output == ["RESERVE", "CHARGE"]
    assert world.calls == {"reserve": 1, "charge": 3, "release": 2}


def test_a_compensation_that_fails_itself_is_what_is_redone(durable, world):  # rule 45
    @durable.orchestrator
    def compensates(ctx):
        try:
            yield ctx.call_activity("do", "charge")
        except TaskFailedError:
            yield ctx.call_activity("do", "release")
        return "released"

    durable.start_worker()
    world.breaks("charge", "release")
    instance_id = failed(durable, compensates)
    world.mend()
    assert rewound(durable, instance_id).output == "released"
    assert world.calls == {"charge": 1, "release": 2}


# ---------------------------------------------------------------- fan-outs


def test_the_successes_of_a_fan_out_are_kept_and_all_its_failures_redone(durable, world):  # REW-3
    @durable.orchestrator
    def fans_out(ctx, names):
        return (yield ctx.when_all([ctx.call_activity("do", name) for name in names]))

    durable.start_worker()
    names = [f"n{number}" for number in range(12)]
    world.breaks("n3", "n5", "n8")
    instance_id = failed(durable, fans_out, names)
    until(lambda: not durable_busy(durable))
    world.mend()
    assert rewound(durable, instance_id).output == [name.upper() for name in names]
    assert all(world.calls[name] == 1 for name in set(names) - {"n3", "n5", "n8"})
    assert all(1 <= world.calls[name] <= 2 for name in names)


def test_members_that_run_while_the_instance_fails_report_for_the_rewind(durable, world, gate):  # REW-3
    # Given a fan-out that fails while one member runs
    @durable.activity
    def slow(fails):
        world.ledger.write("slow")
        until(lambda: current_activity.is_cancelled)
        world.ledger.write("cancelled")
        gate.wait()
        if fails and world.calls["slow"] == 1:
            raise ValueError("late")
        return "slow"

    @durable.orchestrator
    def fans_out(ctx, fails):
        return (yield ctx.when_all([ctx.call_activity(slow, fails), ctx.call_activity("do", "quick")]))

    durable.start_worker()
    world.breaks("quick")
    instance_id = failed(durable, fans_out, False)
    world.mend()

    # When the member ends before the rewind, or after it
    until(lambda: world.calls["cancelled"])
    gate.open()
    until(lambda: not durable_busy(durable))
    assert rewound(durable, instance_id).output == ["slow", "QUICK"]

    # Then it is not run again
    assert world.calls["slow"] == 1


def durable_busy(durable):
    store = durable.client._store
    return store._sql.read(lambda: store._sql.rows("SELECT 1 FROM durable_activity WHERE hub = ?", (store._hub,)))


def test_a_member_that_runs_on_over_the_rewind_is_not_started_again(durable, world, gate):  # REW-3
    @durable.activity
    def slow():
        world.ledger.write("slow")
        gate.wait()
        return "slow"

    @durable.orchestrator
    def fans_out(ctx):
        return (yield ctx.when_all([ctx.call_activity(slow), ctx.call_activity("do", "quick")]))

    durable.start_worker()
    world.breaks("quick")
    instance_id = failed(durable, fans_out)
    world.mend()
    durable.client.rewind(instance_id)
    until(lambda: world.calls["quick"] == 2)
    gate.open()
    assert finish(durable, instance_id).output == ["slow", "QUICK"]
    assert world.calls["slow"] == 1


def test_a_member_that_fails_late_is_redone(durable, world, gate):  # REW-3
    @durable.activity
    def slow():
        world.ledger.write("slow")
        gate.wait()
        if world.calls["slow"] == 1:
            raise ValueError("late")
        return "slow"

    @durable.orchestrator
    def fans_out(ctx):
        return (yield ctx.when_all([ctx.call_activity(slow), ctx.call_activity("do", "quick")]))

    durable.start_worker()
    world.breaks("quick")
    instance_id = failed(durable, fans_out)
    world.mend()
    gate.open()
    until(lambda: not durable_busy(durable))
    assert rewound(durable, instance_id).output == ["slow", "QUICK"]
    assert world.calls["slow"] == 2


def test_members_that_nobody_had_begun_are_begun_after_the_rewind(make_durable, empty_world):  # REW-3
    durable = make_durable(DURABLE_MAX_ACTIVITIES=1)
    world = empty_world

    @durable.activity
    def do(name):
        return world(name)

    @durable.orchestrator
    def fans_out(ctx, names):
        return (yield ctx.when_all([ctx.call_activity("do", name) for name in names]))

    names = [f"n{number}" for number in range(40)]
    durable.start_worker()
    world.breaks("n0")
    instance_id = failed(durable, fans_out, names)
    begun = sum(world.calls.values())
    world.mend()
    assert rewound(durable, instance_id).output == [name.upper() for name in names]
    assert begun < 40
    assert world.calls == {name: 2 if name == "n0" else 1 for name in names}


def test_work_done_between_a_failure_and_its_being_noticed_is_kept(durable, world):  # REW-3
    @durable.orchestrator
    def one_by_one(ctx, names):
        fetched = [ctx.call_activity("do", name) for name in names]
        stored = []
        for number, task in enumerate(fetched):
            yield task
            stored.append((yield ctx.call_activity("do", f"store {number}")))
        return stored

    durable.start_worker()
    world.breaks("y", "z")
    instance_id = failed(durable, one_by_one, ["w", "x", "y", "z"])
    until(lambda: not durable_busy(durable))
    world.mend()
    assert rewound(durable, instance_id).output == [f"STORE {number}" for number in range(4)]
    assert world.calls == {"w": 1, "x": 1, "y": 2, "z": 2, "store 0": 1, "store 1": 1, "store 2": 1, "store 3": 1}


@pytest.mark.parametrize("how", ["the first", "a group", "an error of its own"])
def test_what_a_settled_group_shows_and_the_code_then_raises_is_redone(durable, world, how):  # REW-3
    @durable.orchestrator
    def settles(ctx, names):
        tasks = yield ctx.when_all_settled([ctx.call_activity("do", name) for name in names])
        errors = [task.get_exception() for task in tasks if task.is_failed]
        if errors and how == "the first":
            raise errors[0]
        if errors and how == "a group":
            raise ExceptionGroup("some failed", errors)
        if errors:
            raise RuntimeError(f"{len(errors)} failed")
        return [task.result for task in tasks]

    durable.start_worker()
    world.breaks("b", "c")
    instance_id = failed(durable, settles, ["a", "b", "c"])
    world.mend()
    assert rewound(durable, instance_id).output == ["A", "B", "C"]
    assert world.calls == {"a": 1, "b": 2, "c": 2}


# ---------------------------------------------------------------- children


@pytest.fixture
def family(durable, world):
    """A grandparent whose grandchild does one step, each generation with a step of its own before."""

    @durable.orchestrator
    def grandchild(ctx, name):
        yield ctx.call_activity("do", "low")
        return (yield ctx.call_activity("do", name))

    @durable.orchestrator
    def child(ctx, name):
        yield ctx.call_activity("do", "middle")
        return (yield ctx.call_sub_orchestrator(grandchild, name, instance_id="grandchild"))

    @durable.orchestrator
    def grandparent(ctx, name):
        yield ctx.call_activity("do", "top")
        healthy = yield ctx.call_sub_orchestrator("steps", ["healthy"], instance_id="healthy")
        return [healthy, (yield ctx.call_sub_orchestrator(child, name, instance_id="child"))]

    durable.start_worker()
    world.breaks("x")
    return durable


ONCE = {"top": 1, "healthy": 1, "middle": 1, "low": 1, "x": 2}


def test_failed_children_are_rewound_at_every_depth(family, world):  # REW-4
    instance_id = failed(family, "grandparent", "x")
    world.mend()
    status = rewound(family, instance_id, "all of you")
    assert status.output == [["HEALTHY"], "X"]
    assert world.calls == ONCE
    assert len(rewinds_of(family, "grandchild")) == len(rewinds_of(family, "child")) == 1
    assert rewinds_of(family, "healthy") == []
    assert look(family, "grandchild").parent_instance_id == "child"


@pytest.mark.parametrize("purged", ["child", "grandchild"])
def test_a_purged_child_is_run_from_the_beginning_with_its_id_and_input(family, world, purged):  # REW-4
    instance_id = failed(family, "grandparent", "x")
    family.client.purge(purged)
    world.mend()
    assert rewound(family, instance_id).output == [["HEALTHY"], "X"]
    again = {"child": {"middle": 2}, "grandchild": {"low": 2}}[purged]
    if purged == "child":
        again["low"] = 2  # its own child had failed too, and is run anew under its id
    assert world.calls == {**ONCE, **again}
    assert look(family, purged).input == "x"


def test_a_terminated_child_is_run_from_the_beginning(durable, world):  # REW-4
    @durable.orchestrator
    def waits(ctx, name):
        yield ctx.call_activity("do", name)
        return (yield ctx.wait_for_external_event("Go"))

    @durable.orchestrator
    def parent(ctx):
        return (yield ctx.call_sub_orchestrator(waits, "begin", instance_id="waiting"))

    durable.start_worker()
    instance_id = durable.client.start(parent)
    until(lambda: world.calls["begin"])
    durable.client.terminate("waiting")
    assert finish(durable, instance_id).runtime_status is FAILED
    durable.client.rewind(instance_id)
    until(has_status(durable, "waiting", RuntimeStatus.RUNNING))
    durable.client.raise_event("waiting", "Go", "went")
    assert finish(durable, instance_id).output == "went"
    assert world.calls == {"begin": 2}


@pytest.mark.parametrize("is_done", [True, False], ids=["and has ended", "and runs"])
def test_a_child_that_was_rewound_by_itself_gives_its_output(durable, world, gate, is_done):  # REW-4

    @durable.activity
    def finish_up():
        gate.wait()
        return "up"

    @durable.orchestrator
    def child(ctx):
        yield ctx.call_activity("do", "x")
        return (yield ctx.call_activity(finish_up))

    @durable.orchestrator
    def parent(ctx):
        return (yield ctx.call_sub_orchestrator(child, instance_id="the-child"))

    durable.start_worker()
    world.breaks("x")
    instance_id = failed(durable, parent)
    world.mend()
    durable.client.rewind("the-child")
    if is_done:
        gate.open()
        finish(durable, "the-child")
    durable.client.rewind(instance_id)
    gate.open()
    assert finish(durable, instance_id).output == "up"
    assert world.calls == {"x": 2}
    assert len(rewinds_of(durable, "the-child")) == 1


def test_a_handled_failure_of_a_child_that_fails_again_by_itself_stays_handled(durable, world):  # rule 45, DET-8
    # Given an instance that has handled the failure of a child, and then failed for another reason
    @durable.orchestrator
    def child(ctx):
        return (yield ctx.call_activity("do", "x"))

    @durable.orchestrator
    def parent(ctx):
        try:
            yield ctx.call_sub_orchestrator(child, instance_id="the-child")
        except SubOrchestrationFailedError:
            yield ctx.call_activity("do", "instead")
        return (yield ctx.call_activity("do", "y"))

    durable.start_worker()
    world.breaks("x", "y")
    instance_id = failed(durable, parent)

    # When the child is rewound alone, fails again, and then the instance is rewound
    assert rewound(durable, "the-child").runtime_status is FAILED
    world.mend()
    status = rewound(durable, instance_id)

    # Then what was handled is not done again
    assert status.output == "Y", status.failure_details
    assert world.calls == {"x": 2, "instead": 1, "y": 2}


def test_a_retried_child_gets_new_attempts(durable, world):  # REW-4, rule 28
    @durable.orchestrator
    def child(ctx):
        return (yield ctx.call_activity("do", "x"))

    @durable.orchestrator
    def parent(ctx):
        policy = RetryPolicy(first_retry_interval=0.01, max_number_of_attempts=2)
        try:
            return (yield ctx.call_sub_orchestrator(child, retry_policy=policy))
        except SubOrchestrationFailedError as error:
            raise RuntimeError("in vain") from error

    durable.start_worker()
    world.breaks("x")
    instance_id = failed(durable, parent)
    assert world.calls == {"x": 2}
    assert rewound(durable, instance_id).runtime_status is FAILED
    assert world.calls == {"x": 4}
    world.mend()
    assert rewound(durable, instance_id).output == "X"
    assert world.calls == {"x": 5}


# ---------------------------------------------------------------- failures of the code itself


def test_a_fixed_orchestrator_runs_on_from_the_last_good_turn(make_durable, empty_world):  # rule 45
    world = empty_world

    def deploy(is_fixed):
        durable = make_durable()

        @durable.activity
        def do(name):
            return world(name)

        @durable.orchestrator
        def child(ctx, name):
            return (yield ctx.call_activity(do, name))

        @durable.orchestrator
        def main(ctx):
            first = yield ctx.call_activity(do, "first")
            event = yield ctx.wait_for_external_event("Go")
            below = ctx.call_sub_orchestrator(child, "below")
            if not is_fixed:
                first.no_such_thing()
            return [first, event, (yield below), (yield ctx.call_activity(do, "last"))]

        durable.start_worker()
        return durable

    # Given code with a bug that strikes after a child was begun
    old = deploy(is_fixed=False)
    instance_id = old.client.start("main")
    old.client.raise_event(instance_id, "Go", 7)
    assert finish(old, instance_id).failure_details.type_name == "builtins.AttributeError"
    until(lambda: world.calls["below"])
    old.stop_worker()

    # When it is fixed and the instance rewound
    new = deploy(is_fixed=True)
    status = rewound(new, instance_id)

    # Then the turn runs again, and meets the child
    assert status.output == ["FIRST", 7, "BELOW", "LAST"]
    assert world.calls == {"first": 1, "below": 1, "last": 1}
    assert len(new.client.list(InstanceFilter(parent_instance_id=instance_id)).items) == 1


def test_a_fixed_orchestrator_that_failed_in_its_first_turn_begins_anew(make_durable, empty_world):  # rule 45
    world = empty_world

    def deploy(is_fixed):
        durable = make_durable()

        @durable.orchestrator
        def main(ctx, given):
            if not is_fixed:
                raise KeyError(given)
            return [given, (yield ctx.wait_for_external_event("Go")), (yield ctx.wait_for_external_event("Go"))]

        return durable

    old = deploy(is_fixed=False)
    instance_id = old.client.start("main", "given")
    old.client.raise_event(instance_id, "Go", 1)
    old.client.raise_event(instance_id, "Go", 2)
    old.start_worker()
    assert finish(old, instance_id).runtime_status is FAILED
    with pytest.raises(InstanceFinishedError):
        old.client.raise_event(instance_id, "Go", 3)
    old.stop_worker()
    new = deploy(is_fixed=True)
    new.start_worker()
    assert rewound(new, instance_id).output == ["given", 1, 2]
    assert world.calls == {}


def test_an_output_that_was_no_json_can_be_mended(make_durable):  # rule 45, SCH-8
    def deploy(output):
        durable = make_durable()

        @durable.orchestrator
        def main(ctx):
            yield ctx.create_timer(timedelta(milliseconds=1))
            return output

        durable.start_worker()
        return durable

    old = deploy(object())
    instance_id = failed(old, "main")
    old.stop_worker()
    assert rewound(deploy("fine"), instance_id).output == "fine"


def test_code_that_did_not_fit_its_history_can_be_put_back(make_durable):  # rule 45, DET-6
    def deploy(name):
        durable = make_durable(DURABLE_CACHE_SIZE=0)

        @durable.activity
        def a():
            return "a"

        @durable.activity
        def b():
            return "b"

        @durable.orchestrator
        def main(ctx):
            first = yield ctx.call_activity(name)
            return [first, (yield ctx.wait_for_external_event("Go"))]

        durable.start_worker()
        return durable

    old = deploy("a")
    instance_id = old.client.start("main")
    until(lambda: "TaskCompleted" in event_names(old, instance_id))
    old.stop_worker()
    wrong = deploy("b")
    wrong.client.raise_event(instance_id, "Go", 1)
    assert finish(wrong, instance_id).failure_details.type_name.endswith("NonDeterminismError")
    assert rewound(wrong, instance_id).failure_details.type_name.endswith("NonDeterminismError")
    wrong.stop_worker()
    assert rewound(deploy("a"), instance_id).output == ["a", 1]


@pytest.mark.lasting_worker("workers that are replaced all the time give no turn so much time")
def test_code_that_did_not_yield_in_time_can_be_mended(make_durable, gate):  # rule 45

    def deploy(is_fixed):
        durable = make_durable(DURABLE_TURN_TIMEOUT=1.5)

        @durable.activity
        def a():
            return "a"

        @durable.orchestrator
        def main(ctx):
            first = yield ctx.call_activity(a)
            if not is_fixed:
                gate.wait()
            return first

        durable.start_worker()
        return durable

    old = deploy(is_fixed=False)
    instance_id = failed(old, "main")
    assert look(old, instance_id).failure_details.type_name == "flask_durable.TurnTimeout"
    gate.open()
    old.stop_worker()
    assert rewound(deploy(is_fixed=True), instance_id).output == "a"


# ---------------------------------------------------------------- timers and events


def test_a_timer_whose_time_has_passed_fires_at_once(durable, world):  # rule 45, TIM-2
    @durable.orchestrator
    def races(ctx):
        patience = ctx.create_timer(timedelta(milliseconds=150))
        yield ctx.call_activity("do", "x")
        yield patience
        return "patient"

    durable.start_worker()
    world.breaks("x")
    instance_id = failed(durable, races)
    other = run(durable, "wait_past", 0.2)
    assert other.output == "past"
    world.mend()
    assert rewound(durable, instance_id).output == "patient"


@pytest.fixture(autouse=True)
def _wait_past(durable):
    @durable.orchestrator
    def wait_past(ctx, seconds):
        yield ctx.create_timer(timedelta(seconds=seconds))
        return "past"


def test_a_timer_cancelled_in_what_no_longer_counts_is_set_again(durable, world):  # rule 45
    @durable.orchestrator
    def cancels(ctx):
        patience = ctx.create_timer(timedelta(milliseconds=50))
        try:
            yield ctx.call_activity("do", "x")
        except TaskFailedError:
            patience.cancel()
            yield ctx.call_activity("do", "compensate")
            raise
        yield patience
        return "patient"

    durable.start_worker()
    world.breaks("x")
    instance_id = failed(durable, cancels)
    world.mend()
    assert rewound(durable, instance_id).output == "patient"


def test_a_timer_that_was_cancelled_before_stays_cancelled(durable, world):  # TIM-3
    @durable.orchestrator
    def cancels(ctx):
        patience = ctx.create_timer(timedelta(hours=1))
        yield ctx.call_activity("do", "a")
        patience.cancel()
        yield ctx.call_activity("do", "x")
        return (yield ctx.wait_for_external_event("Go"))

    durable.start_worker()
    world.breaks("x")
    instance_id = failed(durable, cancels)
    world.mend()
    durable.client.rewind(instance_id)
    until(lambda: world.calls["x"] == 2)
    store = durable.client._store
    timers = "SELECT 1 FROM durable_message WHERE hub = ? AND instance_id = ?"
    until(lambda: not store._sql.read(lambda: store._sql.rows(timers, (store._hub, instance_id))))
    durable.client.raise_event(instance_id, "Go", 1)
    assert finish(durable, instance_id).output == 1


def test_events_keep_their_order_whether_they_were_read_or_not(durable, world):  # rule 45, rule 20
    @durable.orchestrator
    def reads(ctx):
        first = yield ctx.wait_for_external_event("E")
        try:
            yield ctx.call_activity("do", "x")
        except TaskFailedError:
            second = yield ctx.wait_for_external_event("E")
            raise ValueError(f"{first} {second}")  # noqa: B904 - blamed on its context
        return [first, (yield ctx.wait_for_external_event("E")), (yield ctx.wait_for_external_event("E"))]

    world.breaks("x")
    instance_id = durable.client.start(reads)
    for number in (1, 2, 3):
        durable.client.raise_event(instance_id, "E", number)
    durable.start_worker()
    assert finish(durable, instance_id).output == "1 2"
    world.mend()
    assert rewound(durable, instance_id).output == [1, 2, 3]


def test_the_custom_status_goes_back_too(durable, world):  # rule 45, SCH-7
    @durable.orchestrator
    def shows(ctx):
        ctx.set_custom_status("working")
        try:
            yield ctx.call_activity("do", "x")
        except TaskFailedError:
            ctx.set_custom_status("giving up")
            raise
        return (yield ctx.wait_for_external_event("Go"))

    durable.start_worker()
    world.breaks("x")
    instance_id = failed(durable, shows)
    assert look(durable, instance_id).custom_status == "giving up"
    world.mend()
    durable.client.rewind(instance_id)
    until(lambda: look(durable, instance_id).custom_status == "working")


# ---------------------------------------------------------------- many


def test_many_are_rewound_once_each(durable, world):  # rule 46
    durable.start_worker()
    world.breaks("a", "b")
    mendable = [failed(durable, "steps", ["a"], tags={"team": "sales"}) for _ in range(3)]
    hopeless = [failed(durable, "steps", ["b"], tags={"team": "sales"}) for _ in range(2)]
    other = failed(durable, "steps", ["a"])
    world.mend("a")
    assert durable.client.rewind_by(InstanceFilter(tags={"team": "sales"}), "all again") == 5
    assert [finish(durable, each).runtime_status for each in mendable] == [RuntimeStatus.COMPLETED] * 3
    assert [finish(durable, each).runtime_status for each in hopeless] == [FAILED] * 2
    assert [len(rewinds_of(durable, each)) for each in hopeless] == [1, 1]
    assert look(durable, other).runtime_status is FAILED
    assert durable.client.rewind_by(InstanceFilter(statuses=(RuntimeStatus.COMPLETED,))) == 0


def test_a_family_counts_once_when_many_are_rewound(family, world):  # rule 46, REW-4
    instance_id = failed(family, "grandparent", "x")
    world.mend()
    assert family.client.rewind_by(InstanceFilter()) == 1
    assert finish(family, instance_id).runtime_status is RuntimeStatus.COMPLETED
    assert world.calls == ONCE


def test_code_that_does_not_fit_what_counts_is_parked_where_that_is_wished(make_durable, empty_world):  # rule 2, rule 45
    def deploy(name):
        durable = make_durable(DURABLE_NONDETERMINISM="park")

        @durable.activity
        def do(name):
            return empty_world(name)

        @durable.orchestrator
        def main(ctx):
            first = yield ctx.call_activity(do, "first") if name == "do" else ctx.call_activity(name)
            return [first, (yield ctx.call_activity(do, "second"))]

        durable.start_worker()
        return durable

    empty_world.breaks("second")
    old = deploy("do")
    instance_id = failed(old, "main")
    old.stop_worker()
    empty_world.mend()
    wrong = deploy("other")
    wrong.client.rewind(instance_id)
    until(lambda: look(wrong, instance_id).parked_reason)
    wrong.stop_worker()
    right = deploy("do")
    right.client.resume(instance_id)
    assert finish(right, instance_id).output == ["FIRST", "SECOND"]
    assert empty_world.calls == {"first": 1, "second": 2}


def test_a_child_that_was_terminated_with_its_parent_is_run_from_the_beginning(durable, world):  # REW-4, rule 42
    @durable.orchestrator
    def below(ctx):
        yield ctx.call_activity("do", "begin")
        return (yield ctx.wait_for_external_event("Go"))

    @durable.orchestrator
    def above(ctx):
        task = ctx.call_sub_orchestrator(below, instance_id="below", on_parent_end="terminate")
        yield ctx.wait_for_external_event("Now")
        yield ctx.call_activity("do", "x")
        return (yield task)

    durable.start_worker()
    world.breaks("x")
    instance_id = durable.client.start(above)
    until(lambda: world.calls["begin"])
    durable.client.raise_event(instance_id, "Now")
    finish(durable, instance_id)
    until(has_status(durable, "below", RuntimeStatus.TERMINATED))
    world.mend()
    durable.client.rewind(instance_id)
    until(lambda: world.calls["begin"] == 2)
    durable.client.raise_event("below", "Go", 1)
    assert finish(durable, instance_id).output == 1


def test_a_rewound_instance_can_be_suspended_terminated_and_restarted(durable, world):  # MGT-1, MGT-2, MGT-4
    durable.start_worker()
    world.breaks("b")
    instance_id = failed(durable, "steps", ["a", "b"])
    durable.stop_worker()
    durable.client.rewind(instance_id)
    durable.client.suspend(instance_id)
    durable.start_worker()
    assert look(durable, instance_id).runtime_status is RuntimeStatus.SUSPENDED
    world.mend()
    durable.client.resume(instance_id)
    assert finish(durable, instance_id).output == ["A", "B"]
    assert durable.client.restart(instance_id, new_instance_id=False) == instance_id
    assert finish(durable, instance_id).output == ["A", "B"]
    assert rewinds_of(durable, instance_id) == []


def test_a_later_generation_can_be_rewound(durable, world):  # rule 45, rule 31
    @durable.orchestrator
    def generations(ctx, number):
        yield ctx.call_activity("do", f"n{number}")
        event = yield ctx.wait_for_external_event("E")
        if number < 2:
            ctx.continue_as_new(number + 1)
        return event

    world.breaks("n2")
    instance_id = durable.client.start(generations, 0)
    for number in range(3):
        durable.client.raise_event(instance_id, "E", number)
    durable.start_worker()
    assert finish(durable, instance_id).runtime_status is FAILED
    world.mend()
    assert rewound(durable, instance_id).output == 2
    assert world.calls == {"n0": 1, "n1": 1, "n2": 2}
