"""Continue-as-new, and the custom status."""

from __future__ import annotations

from datetime import timedelta

from support import event_names, finish, has_status, look, run, until

from flask_durable import RuntimeStatus


def test_continue_as_new_keeps_the_id_and_empties_the_history(durable, ledger):  # rule 31, CAN-1, CAN-3
    @durable.orchestrator
    def generations(ctx, number):
        ledger.write([ctx.generation, ctx.execution_id])
        number = yield ctx.call_activity("double", number)
        if number < 16:
            ctx.continue_as_new(number)
            ctx.continue_as_new("a second call does not count")
            return "neither does this"
        return number

    durable.start_worker()
    status = run(durable, generations, 1, tags={"k": "v"}, version="1")
    assert (status.output, status.input, status.tags, status.version) == (16, 8, {"k": "v"}, "1")
    seen = {(generation, execution_id) for generation, execution_id in ledger.read()}
    assert sorted(generation for generation, _ in seen) == [0, 1, 2, 3]
    assert len({execution_id for _, execution_id in seen}) == 4
    assert event_names(durable, status.instance_id) == ["ExecutionStarted", "TaskScheduled", "TaskCompleted", "ExecutionCompleted"]


def test_no_unread_event_is_lost_between_generations(durable):  # rule 32, CAN-2
    @durable.orchestrator
    def collects(ctx, collected):
        ctx.set_custom_status(len(collected))
        collected.append((yield ctx.wait_for_external_event("E")))
        if len(collected) < 40:
            ctx.continue_as_new(collected)
            return None
        return collected

    durable.start_worker()
    instance_id = durable.client.start(collects, [])
    for index in range(40):
        durable.client.raise_event(instance_id, "E", index)
    status = finish(durable, instance_id)
    assert (status.output, status.custom_status, status.input) == (list(range(40)), 39, list(range(39)))


def test_events_that_came_before_the_first_turn_are_carried_over(durable):  # rule 32
    @durable.orchestrator
    def collects(ctx, collected):
        collected.append((yield ctx.wait_for_external_event("E")))
        if len(collected) < 5:
            ctx.continue_as_new(collected)
        return collected

    instance_id = durable.client.start(collects, [])
    for index in range(5):
        durable.client.raise_event(instance_id, "E", index)
    durable.start_worker()
    assert finish(durable, instance_id).output == [0, 1, 2, 3, 4]


def test_unread_events_are_dropped_on_request(durable):  # CAN-2
    @durable.orchestrator
    def forgets(ctx, is_second):
        if is_second:
            return (yield ctx.wait_for_external_event("E", timeout=timedelta(milliseconds=50), default="nothing"))
        yield ctx.wait_for_external_event("Next")
        ctx.continue_as_new(True, save_events=False)

    instance_id = durable.client.start(forgets, False)
    durable.client.raise_event(instance_id, "E", "unread")
    durable.client.raise_event(instance_id, "Next")
    durable.start_worker()
    assert finish(durable, instance_id).output == "nothing"


def test_timers_and_results_of_an_old_generation_do_not_reach_the_new_one(durable):  # CAN-4, rule 17
    @durable.orchestrator
    def leaves_open(ctx, generation):
        if generation == 0:
            ctx.create_timer(timedelta(milliseconds=50))
            ctx.call_activity("double", 1)
            ctx.continue_as_new(1)
            return None
        timer = ctx.create_timer(timedelta(milliseconds=150))
        yield timer
        return (yield ctx.call_activity("double", 50))

    durable.start_worker()
    status = run(durable, leaves_open, 0)
    assert status.output == 100
    assert event_names(durable, status.instance_id).count("TimerFired") == 1


def test_a_child_of_an_old_generation_does_not_answer_for_one_of_the_new(durable):  # rule 31, CAN-4
    @durable.orchestrator
    def child(ctx):
        return (yield ctx.wait_for_external_event("Answer"))

    @durable.orchestrator
    def parent(ctx, number):
        call = ctx.call_sub_orchestrator(child, instance_id=f"child-{number}")  # call 1 in both generations
        if number == 1:
            yield ctx.wait_for_external_event("Next")
            ctx.continue_as_new(2)
            return None
        return (yield call)

    # Given a generation that waits for its child, while the child of the one before is still open
    durable.start_worker()
    instance_id = durable.client.start(parent, 1)
    until(lambda: durable.client.get_status("child-1"))
    durable.client.raise_event(instance_id, "Next")
    until(lambda: durable.client.get_status("child-2"))

    # When both children end, the old one first
    durable.client.raise_event("child-1", "Answer", "old")
    assert finish(durable, "child-1").output == "old"
    durable.client.raise_event("child-2", "Answer", "new")

    # Then only the new one counts
    assert finish(durable, instance_id).output == "new"


def test_ids_differ_between_generations(durable):  # rule 4
    @durable.orchestrator
    def ids(ctx, made):
        made.append(str(ctx.new_uuid()))
        if len(made) < 3:
            ctx.continue_as_new(made)
        return made

    durable.start_worker()
    assert len(set(run(durable, ids, []).output)) == 3


def test_a_failure_wins_over_continue_as_new(durable):  # rule 33
    @durable.orchestrator
    def fails(ctx):
        try:
            yield ctx.call_activity("fail", "boom")
        finally:
            ctx.continue_as_new()

    durable.start_worker()
    status = run(durable, fails)
    assert (status.runtime_status, status.output) == (RuntimeStatus.FAILED, "Activity task #1 failed: boom")


def test_a_loop_without_waits_does_not_starve_the_others(durable):  # rule 34
    @durable.orchestrator
    def forever(ctx, number):
        ctx.continue_as_new(number + 1)

    durable.start_worker()
    endless = durable.client.start(forever, 0)
    until(lambda: look(durable, endless).input > 3)
    instance_id = durable.client.start("wait_for_go")
    durable.client.raise_event(instance_id, "Go", "came through")
    assert finish(durable, instance_id).output == "came through"

    # and it is Running all along (rule 35), until it is terminated
    assert look(durable, endless).runtime_status is RuntimeStatus.RUNNING
    durable.client.terminate(endless, "enough")
    assert finish(durable, endless).output == "enough"


def test_suspension_stays_in_force_over_generations(durable):  # rule 33
    @durable.orchestrator
    def steps(ctx, number):
        ctx.set_custom_status(number)
        yield ctx.wait_for_external_event("Step")
        if number < 2:
            ctx.continue_as_new(number + 1)

    durable.start_worker()
    instance_id = durable.client.start(steps, 0)
    durable.client.raise_event(instance_id, "Step")
    until(lambda: look(durable, instance_id).custom_status == 1)
    durable.client.suspend(instance_id)
    durable.client.raise_event(instance_id, "Step")
    durable.client.raise_event(instance_id, "Step")
    until(has_status(durable, instance_id, RuntimeStatus.SUSPENDED))
    assert look(durable, instance_id).custom_status == 1
    durable.client.resume(instance_id)
    assert finish(durable, instance_id).custom_status == 2


def test_the_custom_status_is_visible_at_once_and_survives(durable):  # rule 48, SCH-7
    @durable.orchestrator
    def shows(ctx, generation):
        if generation == 1:
            yield ctx.wait_for_external_event("Fail")
            raise RuntimeError("failed")
        ctx.set_custom_status({"step": ["first", None]})
        yield ctx.wait_for_external_event("Next")
        ctx.set_custom_status("second")
        yield ctx.wait_for_external_event("Next")
        ctx.continue_as_new(1)

    durable.start_worker()
    instance_id = durable.client.start(shows, 0)
    until(lambda: look(durable, instance_id).custom_status == {"step": ["first", None]})
    durable.client.raise_event(instance_id, "Next")
    until(lambda: look(durable, instance_id).custom_status == "second")
    durable.client.raise_event(instance_id, "Next")
    until(lambda: look(durable, instance_id).input == 1)
    durable.client.raise_event(instance_id, "Fail")
    status = finish(durable, instance_id)
    assert (status.runtime_status, status.custom_status) == (RuntimeStatus.FAILED, "second")


def test_the_custom_status_can_be_removed(durable):  # SCH-7
    @durable.orchestrator
    def removes(ctx):
        ctx.set_custom_status("something")
        yield ctx.call_activity("double", 1)
        ctx.set_custom_status(None)

    durable.start_worker()
    assert run(durable, removes).custom_status is None


def test_a_custom_status_over_its_limit_is_an_error_at_the_call(durable):  # rule 48
    @durable.orchestrator
    def too_much(ctx):
        ctx.set_custom_status("fits")
        yield ctx.call_activity("double", 1)
        try:
            ctx.set_custom_status("\N{SNOWMAN}" * 6000)
        except ValueError as error:
            return str(error)

    durable.start_worker()
    status = run(durable, too_much)
    assert status.output.startswith("The custom status is 18002 bytes of JSON; at most 16384 are allowed")
    assert status.custom_status == "fits"


def test_every_generation_can_have_a_version_of_its_own(durable):  # rule 49
    @durable.orchestrator
    def raises_version(ctx, seen):
        seen.append(ctx.version)
        if len(seen) < 3:
            ctx.continue_as_new(seen, version=f"{len(seen)}.0")
        return seen

    durable.start_worker()
    status = run(durable, raises_version, [])
    assert (status.output, status.version) == ([None, "1.0", "2.0"], "2.0")
