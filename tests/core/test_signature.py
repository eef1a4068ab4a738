"""What the annotations of a function say of its input and its result."""

from __future__ import annotations

import functools
import logging
from collections.abc import Awaitable, Callable, Generator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from flask_durable.core.signature import Signature, activity_signature, orchestrator_signature
from flask_durable.core.typed import PLAIN

if TYPE_CHECKING:
    from nowhere import OnlyForTheTypeChecker  # type: ignore[import-not-found]


@dataclass
class Order:
    id: int


def early(order: Later) -> Later:
    return order


@dataclass
class Later:
    id: int


def wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        return function(*arguments)

    return call


def main(ctx: OnlyForTheTypeChecker, order: Order) -> Generator[Any, Any, Order]:
    yield ctx
    return order


async def awaiting(ctx: Any, order: Order) -> Order:
    return order


def given(signature: Signature, text: str | None = '{"id":1}') -> tuple[Any, ...]:
    return signature.arguments(text, what="input")


class Calls:
    def method(self, order: Order) -> Order:
        return order

    def __call__(self, order: Order) -> Order:
        return order


@pytest.mark.parametrize("function", [early, wrapped(early), Calls(), Calls().method, functools.partial(Calls.method, None)])
def test_an_activity_gets_its_first_parameter_and_gives_its_return_type(function: Any) -> None:  # rule 55, ACT-1
    signature = activity_signature(function)
    kind = Later if function in (early, activity_signature) or getattr(function, "__wrapped__", None) is early else Order
    assert given(signature) == (kind(1),)
    assert signature.result.decode('{"id":2}', what="result") == kind(2)


@pytest.mark.parametrize("function", [main, wrapped(main), awaiting])
def test_an_orchestrator_gets_its_second_parameter_and_gives_what_it_returns(function: Any) -> None:  # rule 55
    signature = orchestrator_signature(function)
    assert given(signature) == (Order(1),)
    assert signature.result.decode('{"id":2}', what="output") == Order(2)


def test_every_call_gets_an_input_of_its_own() -> None:  # rule 55
    signature = activity_signature(early)
    assert given(signature)[0] is not given(signature)[0]
    assert activity_signature(early) is signature


def test_functions_without_annotations_get_values_as_json_has_them() -> None:
    assert activity_signature(lambda value: value) == Signature(True, False, PLAIN, PLAIN)
    assert activity_signature(lambda *values: values) == Signature()
    assert orchestrator_signature(lambda ctx: ctx) == Signature(takes_input=False)
    assert orchestrator_signature(lambda ctx, value=1: value) == Signature(has_default=True)
    assert activity_signature(lambda *, only_named=1: only_named) == Signature(takes_input=False)
    assert activity_signature(print).takes_input


def test_an_absent_input_leaves_a_parameter_its_default() -> None:  # SCH-4
    def counts(number: int = 5) -> int:
        return number

    assert given(activity_signature(counts), None) == ()
    assert given(activity_signature(counts), "0") == (0,)
    assert given(activity_signature(lambda number: number), None) == (None,)


def returns_nothing(ctx: Any) -> None: ...


def yields_only(ctx: Any) -> Iterator[Order]:
    yield ctx


def says_something_else(ctx: Any) -> dict[str, int]:  # type: ignore[misc]
    yield ctx


def gives_nothing(ctx: Any) -> Generator[Any, Any, None]:
    yield ctx


@pytest.mark.parametrize("function", [returns_nothing, yields_only, says_something_else, gives_nothing])
def test_annotations_that_say_nothing_of_the_result_are_left_alone(function: Any) -> None:
    assert orchestrator_signature(function).result is PLAIN


def test_an_annotation_that_cannot_be_resolved_is_reported_once(caplog: pytest.LogCaptureFixture) -> None:  # rule 55
    def lost(value: OnlyForTheTypeChecker) -> OnlyForTheTypeChecker:
        return value

    with caplog.at_level(logging.WARNING, "flask_durable.core"):
        for _ in range(3):
            assert given(activity_signature(lost)) == ({"id": 1},)
    assert [record.getMessage().split(" has the annotation")[0].rpartition(".")[2] for record in caplog.records] == ["lost", "lost"]
    assert caplog.records[0].getMessage().startswith("The input of function ")


def test_annotations_may_name_what_encloses_the_function() -> None:
    @dataclass
    class Local:
        id: int

    def uses(value: Local) -> Local:
        return Local(value.id)

    def does_not(value: Local) -> Awaitable[None]:
        raise NotImplementedError

    assert given(activity_signature(uses)) == (Local(1),)
    assert given(activity_signature(does_not)) == ({"id": 1},)
