"""A COMMIT whose answer is lost: what was written counts, what was not is written once, and nobody is told anything untrue."""

from __future__ import annotations

import os
import uuid

import peewee
import pytest
from commit_faults import CommitFaults

from flask_durable.core.status import RuntimeStatus
from flask_durable.errors import OutcomeUnknownError, StoreUnavailableError, WorkerLostError
from flask_durable.storage.interface import Batch, ClaimRequest, Purge, RaiseEvent, StartInstance, Terminate
from flask_durable.storage.outcomes import Mark

KINDS = [["after"], ["before"], ["before", "fine", "after"], ["after", "before"], ["before", "before", "after"]]


@pytest.fixture
def faults(desk):
    return CommitFaults(desk.store)


@pytest.fixture(params=KINDS, ids="-".join)
def kinds(request):
    return request.param


@pytest.mark.parametrize("is_worker", [False, True], ids=["client", "worker"])
def test_each_command_is_carried_out_once_and_acknowledged(desk, faults, kinds, is_worker):
    numbers = iter(range(1, 100))

    def do(*commands):
        faults.next = list(kinds)
        batch = Batch(worker_id=desk.worker_id, number=next(numbers), commands=commands) if is_worker else Batch(commands=commands)
        return desk.store.commit(batch).outcomes

    instance_id = uuid.uuid4().hex
    assert do(StartInstance(instance_id, uuid.uuid4().hex, "orchestrator", is_id_generated=True)) == [instance_id]
    assert do(StartInstance("named", uuid.uuid4().hex, "orchestrator")) == ["named"]
    assert do(RaiseEvent(instance_id, "Go", "1"), RaiseEvent(instance_id, "Go", "2")) == [None, None]
    assert desk.rows("SELECT payload FROM durable_message WHERE instance_id = ? ORDER BY message_id", instance_id) == [("1",), ("2",)]
    assert do(Terminate(instance_id)) == [None]
    assert desk.get(instance_id).status is RuntimeStatus.TERMINATED
    assert do(Purge(instance_id)) == [1]


def test_what_a_worker_has_claimed_is_known_to_it(desk, faults, kinds):
    """Else it would belong to a worker that does not know of it."""
    desk.start("one")
    faults.next = list(kinds)
    committed = desk.store.commit(Batch(worker_id=desk.worker_id, number=1, claim=ClaimRequest(instances=10, activities=10)))
    assert [work.record.instance_id for work in committed.orchestrations] == ["one"]
    assert desk.get("one").worker_id == desk.worker_id
    assert desk.get("one").deliveries == 1


def test_a_worker_is_registered_renewed_and_released_once(desk, faults, kinds):
    worker_id = uuid.uuid4().hex
    faults.next = list(kinds)
    desk.store.register_worker(worker_id, 60.0)
    faults.next = list(kinds)
    assert desk.store.renew_worker(worker_id, 60.0)
    faults.next = list(kinds)
    desk.store.release_worker(worker_id)
    assert worker_id not in {worker.worker_id for worker in desk.store.workers()}


def test_an_outcome_that_cannot_be_found_out_is_not_taken_for_either(desk, faults, monkeypatch):
    desk.start("one")

    def is_gone(*_):
        raise StoreUnavailableError("The database does not answer")

    batch = Batch(worker_id=desk.worker_id, number=1, commands=[RaiseEvent("one", "Go", "1")])
    with monkeypatch.context() as patch:
        patch.setattr(desk.store._outcomes, "has_worker_landed", is_gone)
        faults.next = ["after"]
        with pytest.raises(OutcomeUnknownError) as caught:
            desk.store.commit(batch)
    assert caught.value.result.outcomes == [None]
    assert desk.store.has_landed(batch)
    assert not desk.store.has_landed(Batch(worker_id=desk.worker_id, number=2))
    faults.next = ["before"]
    with monkeypatch.context() as patch:
        patch.setattr(desk.store._outcomes, "has_landed", is_gone)
        with pytest.raises(OutcomeUnknownError):
            desk.do(RaiseEvent("one", "Go", "2"))


def test_nobody_knows_when_the_worker_is_gone(desk, faults):
    desk.start("one")
    batch = Batch(worker_id=desk.worker_id, number=1, commands=[RaiseEvent("one", "Go", "1")])
    commit = faults._commit

    def after_that_it_is_taken_for_dead():
        commit()
        faults._commit = commit
        desk.store.release_worker(desk.worker_id)

    faults._commit = after_that_it_is_taken_for_dead
    faults.next = ["after"]
    with pytest.raises(OutcomeUnknownError):
        desk.store.commit(batch)
    with pytest.raises(WorkerLostError):
        desk.store.has_landed(batch)


@pytest.mark.parametrize("text", ["database is locked", "deadlock"])
def test_a_commit_that_is_refused_is_run_again_without_a_question(desk, faults, monkeypatch, text):
    desk.start("one")
    asked = []
    monkeypatch.setattr(desk.store._outcomes, "has_landed", asked.append)
    commit, error = faults._commit, peewee.OperationalError(text) if text != "deadlock" else peewee.OperationalError(1213, text)
    errors = [error]

    def refused():
        if errors:
            raise errors.pop()
        commit()

    faults._commit = refused
    assert desk.do(RaiseEvent("one", "Go", "1")) is None
    assert desk.rows("SELECT payload FROM durable_message WHERE instance_id = 'one' AND hub = ?", desk.store._hub) == [("1",)]
    assert asked == []


def test_writers_have_rows_of_their_own_and_use_them_again(desk, monkeypatch):
    outcomes = desk.store._outcomes
    with outcomes.mark() as first, outcomes.mark() as second:
        assert first.client_id != second.client_id
        number = second.number
    with outcomes.mark() as third:
        assert third in (first, second)
        assert third.number > number
    monkeypatch.setattr(os, "getpid", lambda: 0)
    with outcomes.mark() as other:
        assert other not in (first, second)


def test_rows_of_writers_that_are_long_gone_are_deleted(desk):
    old, present = Mark(), Mark()
    old.number = present.number = 1
    day = 24 * 3600 * 1_000_000
    now = desk.store.now()
    desk.store._sql.transaction(lambda: desk.store._outcomes.write(old, now - 2 * day))
    desk.store._sql.transaction(lambda: desk.store._outcomes.write(present, now))
    found = {row[0] for row in desk.rows("SELECT client_id FROM durable_client")}
    assert present.client_id in found
    assert old.client_id not in found
