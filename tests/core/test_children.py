"""Children that end with their parent."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from flask_durable.core.children import BoundChildren, check_on_parent_end
from flask_durable.core.context import OrchestrationContext
from flask_durable.core.events import EventRaised, SubOrchestrationCompleted, SubOrchestrationCreated
from flask_durable.core.retry import RetryPolicy
from flask_durable.errors import InvalidArgumentError

from .driver import BOOM, Driver

Ctx = OrchestrationContext
Code = Generator[Any, Any, Any]


def main(ctx: Ctx, how: str) -> Code:
    ctx.call_sub_orchestrator("stays", 1)
    ctx.call_sub_orchestrator("goes", 2, on_parent_end="terminate")
    done = ctx.call_sub_orchestrator("done", 3, on_parent_end="terminate")
    yield done
    ctx.call_sub_orchestrator("late", 4, on_parent_end="terminate")
    yield ctx.wait_for_external_event("End")
    ctx.call_sub_orchestrator("last", 5, on_parent_end="terminate")
    if how == "fails":
        raise ValueError("boom")
    if how == "continues":
        ctx.continue_as_new()


@pytest.mark.parametrize("is_cold", [False, True])
@pytest.mark.parametrize("how", ["returns", "fails", "continues"])
def test_open_children_end_with_their_parent_when_told_so(how: str, is_cold: bool) -> None:  # rule 42
    driver = Driver(main, how, is_cold=is_cold)
    middle = driver.child_done(3)
    assert (driver.first.bound_children, middle.bound_children) == ((), ())
    last = driver.give(EventRaised("End"), SubOrchestrationCompleted(2))
    assert last.status.is_final or last.next_generation is not None
    assert last.bound_children == (2, 4, 5)


def test_a_contradicted_instance_ends_its_children_by_its_history() -> None:  # rules 2, 42
    driver = Driver(main, "returns")

    def changed(ctx: Ctx) -> Code:
        yield ctx.call_activity("something else")

    execution = driver.replayed(changed)
    assert execution.nondeterminism is not None
    turn = execution.advance(driver.now + 1, [SubOrchestrationCompleted(3)])
    assert (turn.status, turn.bound_children) == ("Failed", (2,))


def test_each_attempt_of_a_retried_child_is_a_call_of_its_own() -> None:  # rules 28, 42
    def retries(ctx: Ctx) -> Code:
        ctx.call_sub_orchestrator("c", retry_policy=RetryPolicy(1, 3), on_parent_end="terminate")
        yield ctx.wait_for_external_event("End")

    driver = Driver(retries)
    driver.child_failed(1, BOOM)
    driver.fired(2)
    assert driver.raised("End").bound_children == (3,)


def test_what_becomes_of_a_child_is_one_of_two_words() -> None:  # rule 42
    assert [check_on_parent_end(word) for word in ("leave", "terminate")] == ["leave", "terminate"]
    for wrong in ("Terminate", "", None, True):
        with pytest.raises(InvalidArgumentError, match="on_parent_end is 'leave' or 'terminate'"):
            check_on_parent_end(wrong)


def test_children_that_are_left_are_not_bound() -> None:  # rule 42
    bound = BoundChildren()
    bound.see([SubOrchestrationCreated(1, "c", "a", "e"), SubOrchestrationCreated(2, "c", "b", "f", on_parent_end="terminate")])
    assert bound.task_ids == (2,)
