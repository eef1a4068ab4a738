"""Versions of instances, workers of versions, and several registrations of one name."""

from __future__ import annotations

import logging

import pytest
from support import finish, has_status, look, run, until

from flask_durable import DurableBlueprint, InvalidArgumentError, RuntimeStatus


def make_app(make_durable, **config):
    """An app whose orchestrators say which version they were given; its worker is not running yet."""
    durable = make_durable(**config)

    @durable.orchestrator
    def tell(ctx):
        return ctx.version

    @durable.orchestrator
    def wait(ctx):
        return [ctx.version, (yield ctx.wait_for_external_event("Go"))]

    @durable.orchestrator
    def parent(ctx, version):
        return [ctx.version, (yield ctx.call_sub_orchestrator("tell", version=version))]

    return durable


def make_worker(make_durable, **config):
    """The same with its worker."""
    durable = make_app(make_durable, **config)
    durable.start_worker()
    return durable


def stays_pending(durable, *instance_ids):
    """The worker has gone round several times since, and has left these alone."""
    for _ in range(3):
        assert run(durable, "tell").runtime_status is RuntimeStatus.COMPLETED
    assert {look(durable, each).runtime_status for each in instance_ids} == {RuntimeStatus.PENDING}


def test_the_context_shows_the_version_given_at_the_start(make_durable):  # VER-1
    durable = make_worker(make_durable)
    assert run(durable, "tell", version="7.1").output == "7.1"
    assert run(durable, "tell").output is None
    assert run(durable, "parent", "3", version="2").output == ["2", "3"]
    assert run(durable, "parent").output == [None, None]


def test_instances_get_the_workers_version_and_children_too(make_durable):  # VER-1, rule 49
    durable = make_worker(make_durable, DURABLE_VERSION="2")
    status = run(durable, "tell")
    assert (status.version, status.output) == ("2", "2")
    assert run(durable, "parent", version="1").output == ["1", "2"]


@pytest.mark.parametrize("generated", [True, False])
def test_a_worker_takes_current_and_older_versions(make_durable, generated):  # VER-2, VER-3
    # Given workers of two versions, of which the older one gets all the starts
    old = make_worker(make_durable, DURABLE_VERSION="1.9")

    def start(version):
        return old.client.start("tell", version=version, instance_id=None if generated else f"i-{version}")

    newer = [start(version) for version in ("1.10", "2", "beta")]
    older = [start(version) for version in ("1.9", "1.09", "1", "0.5.77")]

    # Then it runs those up to its own version and leaves the others
    assert [finish(old, each).output for each in older] == ["1.9", "1.09", "1", "0.5.77"]
    stays_pending(old, *newer)

    # When a newer one comes, then it takes what it fits
    new = make_worker(make_durable, DURABLE_VERSION="2")
    assert [finish(new, each).output for each in newer[:2]] == ["1.10", "2"]
    stays_pending(new, newer[2])
    make_worker(make_durable, DURABLE_VERSION_MATCH="none", DURABLE_VERSION="0")
    assert finish(new, newer[2]).output == "beta"


def test_no_code_of_an_instance_of_another_version_runs(make_durable, ledger):  # VER-3
    durable = make_app(make_durable, DURABLE_VERSION="1")
    durable.orchestrator(name="traced")(lambda ctx: ledger.write(ctx.version))
    durable.start_worker()
    stays_pending(durable, durable.client.start("traced", version="2"), durable.client.start("traced", version="2", instance_id="given"))
    assert run(durable, "traced").version == "1"
    assert set(ledger.read()) == {"1"}


def test_a_strict_worker_takes_its_own_version_only(make_durable):  # VER-2, VER-3
    strict = make_worker(make_durable, DURABLE_VERSION="2", DURABLE_VERSION_MATCH="strict")
    others = [strict.client.start("tell", version=version) for version in ("1", "2.0", "3")]
    assert run(strict, "tell", version="02").output == "02"
    stays_pending(strict, *others)


def test_a_worker_without_a_version_takes_all(make_durable):  # rule 49
    durable = make_worker(make_durable)
    assert [run(durable, "tell", version=version).output for version in ("1", "999", None)] == ["1", "999", None]


def test_a_strict_worker_without_a_version_takes_only_what_has_none(make_durable):  # VER-2
    durable = make_worker(make_durable, DURABLE_VERSION_MATCH="strict")
    stays_pending(durable, durable.client.start("tell", version="1"))
    assert run(durable, "tell").output is None


@pytest.mark.parametrize("generated", [True, False])
@pytest.mark.parametrize(
    ("match", "version", "message"),
    [
        ("strict", "1.9", "The version '1.9' of the instance does not match the worker version '1.10'"),
        ("currentOrOlder", "1.11", "The version '1.11' of the instance is greater than the worker version '1.10'"),
    ],
)
def test_a_worker_can_fail_other_versions(make_durable, match, version, message, generated):  # VER-3
    durable = make_worker(make_durable, DURABLE_VERSION="1.10", DURABLE_VERSION_MATCH=match, DURABLE_VERSION_FAILURE="fail")
    status = run(durable, "tell", version=version, instance_id=None if generated else "given")
    assert (status.runtime_status, status.output) == (RuntimeStatus.FAILED, message)
    assert status.failure_details.type_name == "flask_durable.errors.VersionMismatchError"
    assert run(durable, "tell").output == "1.10"
    failed = run(durable, "parent", version)
    assert failed.output == f"Sub-orchestration task #1 failed: {message}"


def test_a_child_of_another_version_waits_for_its_worker(make_durable):  # VER-2, VER-3
    old = make_worker(make_durable, DURABLE_VERSION="1")
    instance_id = old.client.start("parent", "2")
    until(has_status(old, instance_id, RuntimeStatus.RUNNING))
    [child] = until(lambda: [each for each in old.client.list().items if each.parent_instance_id == instance_id])
    stays_pending(old, child.instance_id)
    make_worker(make_durable, DURABLE_VERSION="2")
    assert finish(old, instance_id).output == ["1", "2"]


def test_a_new_generation_of_a_higher_version_goes_to_the_worker_that_takes_it(make_durable):  # rule 49
    def make(version):
        durable = make_app(make_durable, DURABLE_VERSION=version)

        @durable.orchestrator
        def upgrade(ctx, seen):
            seen = [*seen, [ctx.version, version]]
            if ctx.version != "2":
                ctx.continue_as_new(seen, version="2")
            return seen

        durable.start_worker()
        return durable

    old = make("1")
    instance_id = old.client.start("upgrade", [])
    until(lambda: look(old, instance_id).version == "2")
    for _ in range(3):
        assert run(old, "tell").output == "1"
    assert look(old, instance_id).runtime_status is RuntimeStatus.RUNNING
    make("2")
    assert finish(old, instance_id).output == [["1", "1"], ["2", "2"]]


# -- several registrations


def register(durable, *versions, name="order"):
    """Orchestrators of one name that say for which version they were written."""

    def make(version):
        def order(ctx):
            yield ctx.call_activity("nothing")
            return [version, ctx.version]

        return durable.orchestrator(name=name, version=version)(order)

    if not durable.registry.has_activity("nothing"):
        durable.activity(name="nothing")(lambda: None)
    return [make(version) for version in versions]


@pytest.mark.parametrize(
    ("registered", "version", "runs"),
    [
        ((None, "2", "10"), "1", None),
        ((None, "2", "10"), "2", "2"),
        ((None, "2", "10"), "9.9", "2"),
        ((None, "2", "10"), "10", "10"),
        ((None, "2", "10"), "beta", "10"),
        (("2", "10"), "02", "2"),
        (("10", None, "2"), "0", None),
    ],
)
def test_an_instance_runs_the_registration_of_its_version(durable, registered, version, runs):  # rule 50
    register(durable, *registered)
    durable.start_worker()
    assert run(durable, "order", version=version).output == [runs, version]


def test_a_new_instance_gets_the_newest_registered_version(durable, make_durable):  # rule 50, rule 49
    oldest, newest = register(durable, "1", "1.10")
    plain = register(durable, None, name="plain")[0]

    @durable.orchestrator
    def parent(ctx, by):
        return (yield ctx.call_sub_orchestrator({"name": "order", "old": oldest, "new": newest, "plain": plain}[by]))

    durable.start_worker()
    assert run(durable, "order").output == ["1.10", "1.10"]
    assert run(durable, "plain").output == [None, None]
    assert [run(durable, parent, by).output for by in ("name", "old", "new")] == [["1.10", "1.10"], ["1", "1"], ["1.10", "1.10"]]

    # The version of the app comes first
    other = make_durable(DURABLE_VERSION="1.9")
    register(other, "1", "1.10")
    other.start_worker()
    assert run(other, "order").output == ["1", "1.9"]


def test_a_function_stands_for_its_name_and_version(durable):  # REG-3, rule 50
    oldest, newest = register(durable, "1", "2")
    durable.start_worker()
    assert run(durable, oldest).output == ["1", "1"]
    assert run(durable, newest).output == ["2", "2"]
    assert run(durable, oldest, version="2").output == ["2", "2"]


def test_an_instance_that_no_registration_fits_waits_like_an_unknown_one(durable, make_durable):  # rule 50, rule 8
    register(durable, "2", "3")
    durable.start_worker()
    waiting = [durable.client.start("order", version="1"), durable.client.start("order", version="0", instance_id="given")]
    assert run(durable, "order").output == ["3", "3"]
    assert {look(durable, each).runtime_status for each in waiting} == {RuntimeStatus.PENDING}
    other = make_durable()
    register(other, "1")
    register(other, None)
    other.start_worker()
    assert [finish(durable, each).output for each in waiting] == [["1", "1"], [None, "0"]]


def test_an_instance_that_nobody_has_code_for_fails_in_the_end(make_durable, monkeypatch, caplog):  # rules 8, 50, REG-5
    monkeypatch.setattr("flask_durable.runtime.worker.UNKNOWN_SECONDS", 0.05)
    caplog.set_level(logging.WARNING, "flask_durable")
    durable = make_durable(DURABLE_UNKNOWN_ORCHESTRATOR_TIMEOUT=0.3)
    register(durable, "2", "3")
    durable.start_worker()
    status = run(durable, "order", version="1")
    assert status.runtime_status is RuntimeStatus.FAILED
    assert status.output == "No orchestrator named 'order' for version '1' is registered here. Registered: order (version 2), order (version 3)"


def test_a_name_and_version_is_registered_once(durable, make_durable):  # REG-1
    register(durable, None, "2")
    for version in (None, "2", "02"):
        with pytest.raises(InvalidArgumentError, match="already registered"):
            register(durable, version)
    for version in ("", "x" * 101, 5, "a\nb"):
        with pytest.raises(InvalidArgumentError, match="version"):
            register(durable, version)
    register(durable, "3")


def test_registrations_of_a_blueprint_keep_their_versions(durable):  # rule 50, REG-1
    orders = DurableBlueprint()
    old = orders.orchestrator(name="order", version="1")(lambda ctx: "old")
    orders.orchestrator(name="order", version="2")(lambda ctx: "new")
    durable.register(orders)
    durable.start_worker()
    assert [run(durable, "order", version=version).output for version in ("1", "2", None)] == ["old", "new", "new"]
    assert run(durable, old).output == "old"


def test_a_restart_keeps_the_version(durable):  # rule 47, MGT-4
    register(durable, "1", "2")
    durable.start_worker()
    first = run(durable, "order", version="1")
    again = finish(durable, durable.client.restart(first.instance_id))
    assert (again.version, again.output) == ("1", ["1", "1"])


def test_a_generation_can_move_to_a_newer_registration(durable):  # rules 49, 50
    @durable.orchestrator(name="loop", version="1")
    def first(ctx, seen):
        ctx.continue_as_new([*seen, "first"], version="2")

    @durable.orchestrator(name="loop", version="2")
    def second(ctx, seen):
        return [*seen, "second", ctx.version]

    durable.start_worker()
    assert run(durable, first, []).output == ["first", "second", "2"]
