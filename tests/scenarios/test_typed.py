"""Typed values and exceptions through the real engine: what functions are given and get is what their annotations say."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import marshmallow as ma
import pytest
from support import event_names, finish, look, run, until

from flask_durable import DurableBlueprint, InvalidArgumentError, RetryPolicy, RuntimeStatus, TaskFailedError, TypeMismatchError, current_activity


class Size(Enum):
    SMALL = "s"
    LARGE = "l"


@dataclass
class Item:
    sku: str
    price: Decimal
    size: Size = Size.SMALL


@dataclass
class Order:
    id: UUID
    items: list[Item] = field(default_factory=list)


@dataclass(frozen=True)
class Receipt:
    order: UUID
    total: Decimal
    paid: datetime


class PaymentError(Exception):
    pass


class DeclinedError(PaymentError):
    def __init__(self, reason: str, *, code: int) -> None:
        super().__init__(reason)
        self.code = code


class OrderSchema(ma.Schema):
    id = ma.fields.UUID(required=True)
    price = ma.fields.Decimal(as_string=True)


ORDER = Order(UUID(int=1), [Item("a", Decimal("1.50"), Size.LARGE), Item("b", Decimal("2.25"))])
PAID = datetime(2024, 5, 6, 7, 8, 9, 123456, UTC)


@pytest.fixture
def shop(durable):
    """An app with activities that take and give objects."""
    durable.exception(DeclinedError)

    @durable.activity
    def charge(order: Order) -> Receipt:
        order.items.append(Item("changed here", Decimal(100)))
        return Receipt(order.id, sum((item.price for item in order.items[:-1]), Decimal(0)), PAID)

    @durable.activity
    def decline(code: int) -> None:
        raise DeclinedError("no money", code=code)

    @durable.orchestrator
    def buy(ctx, order: Order) -> Generator[Any, Any, Receipt]:
        receipt = yield ctx.call_activity("charge", order)
        assert isinstance(receipt, Receipt)
        assert len(order.items) == 2
        return receipt

    @durable.orchestrator
    def pay(ctx, code: int):
        yield ctx.call_activity("decline", code)

    return durable


def test_functions_get_and_give_the_types_they_declare(shop):  # rule 55, ACT-1
    # Given a parent that hands an object to a child, which hands it to an activity
    @shop.orchestrator
    def parent(ctx, order: Order):
        same = ctx.input == ctx.get_input() == order and ctx.input is not order
        receipt = yield ctx.call_sub_orchestrator("buy", order)
        bare = yield ctx.call_activity("charge", order, return_type=dict)
        return [same, type(receipt).__name__, receipt.total, receipt.paid, bare["total"]]

    shop.start_worker()

    # When it is started with the object, or with the JSON that the object is
    given = {"id": str(ORDER.id), "items": [{"sku": "a", "price": "1.50", "size": "l"}, {"sku": "b", "price": 2.25}]}
    outputs = [run(shop, parent, value).output for value in (ORDER, given)]

    # Then all of them have seen objects, each its own, and the status shows JSON
    assert outputs == [[True, "Receipt", "3.75", "2024-05-06T07:08:09.123456+00:00", "3.75"]] * 2


def test_a_start_with_an_input_that_does_not_fit_is_refused(shop):  # rule 55
    wrong = {"id": str(ORDER.id), "items": [{"sku": "a", "price": 1}, {"sku": "b", "price": "cheap"}]}
    for orchestrator in ("buy", shop.registry.function_of("orchestrator", "buy")):
        with pytest.raises(InvalidArgumentError) as caught:
            shop.client.start(orchestrator, wrong)
        assert str(caught.value) == "The input of orchestrator 'buy' does not fit at .items[1].price: expected Decimal, found the text 'cheap'"
    assert shop.client.count() == 0


def test_an_input_that_does_not_fit_an_activity_fails_its_call_at_once(shop):  # rule 55, rule 26
    @shop.orchestrator
    def careless(ctx):
        try:
            yield ctx.call_activity("charge", {"id": "x"}, retry_policy=RetryPolicy(3600, 5))
        except TaskFailedError as error:
            return [str(error), error.is_type(TypeMismatchError), error.details.is_non_retriable]

    shop.start_worker()
    text = "Activity task #1 failed: The input of activity 'charge' does not fit at .id: expected UUID, found the text 'x'"
    assert run(shop, careless).output == [text, True, True]


def test_a_result_that_does_not_fit_its_declaration_fails_the_call(shop, ledger):  # rule 55
    @shop.activity
    def lies() -> list[int]:
        ledger.write(current_activity.attempt)
        return [1, "two"]

    @shop.orchestrator
    def asks(ctx):
        yield ctx.call_activity(lies, retry_policy=RetryPolicy(0, 5))

    shop.start_worker()
    status = run(shop, asks)
    assert status.output == "Activity task #1 failed: The result of activity 'lies' does not fit at [1]: expected int, found the text 'two'"
    assert ledger.read() == [1]


def test_a_result_that_the_caller_wants_otherwise_is_raised_at_the_yield(shop):  # rule 55
    @shop.orchestrator
    def wants_numbers(ctx):
        try:
            yield ctx.call_activity("double", "ab", return_type=list[int])
        except TypeMismatchError as error:
            caught = str(error)
        try:
            yield ctx.when_all([ctx.call_activity("double", 1), ctx.call_activity("double", 1, return_type=str)])
        except TypeMismatchError as error:
            return [caught, str(error), (yield ctx.call_activity("double", "1", return_type=Decimal)) * 2]

    shop.start_worker()
    first = "The result of activity 'double' does not fit: expected list, found the text 'abab'"
    assert run(shop, wants_numbers).output == [first, "The result of activity 'double' does not fit: expected str, found 2", "22"]


def test_an_output_that_does_not_fit_its_declaration_fails_the_instance(shop):  # rule 55, SCH-8
    @shop.orchestrator
    def lies(ctx) -> Generator[Any, Any, Receipt]:
        yield ctx.call_activity("double", 1)
        return {"order": 1}

    shop.start_worker()
    status = run(shop, lies)
    assert status.runtime_status is RuntimeStatus.FAILED
    assert status.output.startswith("The output does not fit")
    assert status.failure_details.is_type(TypeMismatchError)


def test_data_of_events_have_the_type_that_the_wait_names(shop):  # rule 55, rule 22
    @shop.orchestrator
    def waits(ctx):
        try:
            yield ctx.wait_for_external_event("Item", data_type=Item, timeout=datetime(2999, 1, 1))
        except TypeMismatchError as error:
            ctx.set_custom_status(str(error))
        item = yield ctx.wait_for_external_event("Item", data_type=Item, timeout=datetime(2999, 1, 1))
        nothing = yield ctx.wait_for_external_event("Item", data_type=Item | None)
        return [item.price + 1, item.size is Size.LARGE, nothing]

    shop.start_worker()
    instance_id = shop.client.start(waits)
    shop.client.raise_event(instance_id, "Item", {"sku": "a", "price": []})
    shop.client.raise_event(instance_id, "Item", Item("a", Decimal("0.5"), Size.LARGE))
    shop.client.raise_event(instance_id, "Item")
    status = finish(shop, instance_id)
    assert status.output == ["1.5", True, None]
    assert status.custom_status == "The data of event 'Item' does not fit at .price: expected Decimal, found a list of 0"


def test_schemas_and_models_are_types_too(shop):  # rule 55
    pydantic = pytest.importorskip("pydantic")

    class Line(pydantic.BaseModel):
        price: Decimal
        when: datetime

    def load(order: OrderSchema) -> Line:
        return Line(price=order["price"], when=PAID)

    def main(ctx, order: OrderSchema):
        line = yield ctx.call_activity("load", {"id": order["id"], "price": order["price"] + 1})
        return [type(line).__name__, line.price, line.when == PAID]

    load.__annotations__["return"] = Line
    shop.activity(load)
    shop.orchestrator(main)
    shop.start_worker()
    assert run(shop, main, {"id": UUID(int=1), "price": Decimal("1.5")}).output == ["Line", "2.5", True]
    with pytest.raises(InvalidArgumentError, match=r"does not fit at .id: Missing data for required field."):
        shop.client.start(main, {"price": "1"})


def test_a_new_generation_gets_its_input_with_its_type(shop):  # rule 31, rule 55
    @shop.orchestrator
    def loops(ctx, order: Order):
        yield ctx.call_activity("double", 1)
        if order.items:
            ctx.continue_as_new(Order(order.id, order.items[1:]))
            return None
        return order.id

    shop.start_worker()
    assert run(shop, loops, ORDER).output == str(ORDER.id)


def test_registered_exceptions_are_caught_by_class(shop):  # rule 30, ACT-2
    @shop.orchestrator
    def careful(ctx):
        caught = []
        for kind in (DeclinedError, PaymentError, TaskFailedError):
            try:
                yield ctx.call_activity("decline", len(caught))
            except kind as error:
                caught.append([str(error), error.code, error.args[0], error.is_type(PaymentError), isinstance(error, TaskFailedError)])
        yield ctx.call_activity("double", 1)
        return caught

    shop.start_worker()
    assert run(shop, careful).output == [[f"Activity task #{number + 1} failed: no money", number, "no money", True, True] for number in range(3)]


def test_failures_of_children_are_caught_by_class_too(shop):  # rule 30, rule 41
    @shop.orchestrator
    def between(ctx, code: int):
        yield ctx.call_sub_orchestrator("pay", code)

    @shop.orchestrator
    def raises(ctx):
        yield ctx.call_activity("double", 1)
        raise DeclinedError("by itself", code=9)

    @shop.orchestrator
    def parent(ctx):
        caught = []
        for child in (between, raises):
            try:
                yield ctx.call_sub_orchestrator(child, 7, retry_policy=RetryPolicy(3600, 2, non_retriable=[PaymentError]))
            except DeclinedError as error:
                caught.append([error.code, error.args[0], type(error.details.cause).__name__])
        return caught

    shop.start_worker()
    assert run(shop, parent).output == [[7, "no money", "FailureDetails"], [9, "by itself", "NoneType"]]


def test_an_uncaught_registered_exception_ends_the_instance_as_a_failed_task(shop):  # ACT-4, rule 30
    shop.start_worker()
    status = run(shop, "pay", 1)
    assert (status.runtime_status, status.output) == (RuntimeStatus.FAILED, "Activity task #1 failed: no money")
    assert status.failure_details.type_name == "flask_durable.core.failure.TaskFailedError"
    assert status.failure_details.cause.is_type(DeclinedError)
    assert 'yield ctx.call_activity("decline", code)' in status.failure_details.traceback


def test_exceptions_of_a_blueprint_and_of_python_can_be_registered(durable):  # rule 30, REG-1
    blueprint = DurableBlueprint()

    @blueprint.exception
    class OutOfStockError(Exception):
        pass

    blueprint.exception(KeyError)

    @blueprint.activity
    def fails(which: str) -> None:
        raise OutOfStockError("sold") if which == "own" else KeyError(which)

    @blueprint.orchestrator
    def catches(ctx):
        try:
            yield ctx.call_activity(fails, "own")
        except OutOfStockError as error:
            first = error.args
        try:
            yield ctx.call_activity(fails, "other")
        except KeyError as error:
            return [first, error.args]

    durable.register(blueprint)
    durable.start_worker()
    assert run(durable, catches).output == [["sold"], ["other"]]


def test_a_stop_in_the_middle_marks_nothing_as_failed(durable):  # rule 7
    # Given an orchestrator that waits inside a try block for everything, and one whose cleanup asks for more
    @durable.orchestrator
    def guards(ctx):
        try:
            return (yield ctx.wait_for_external_event("Go"))
        except BaseException as error:
            ctx.set_custom_status(type(error).__name__)
            raise
        finally:
            ctx.call_activity("double", 1)

    durable.start_worker()
    ids = [durable.client.start(guards) for _ in range(3)]
    until(lambda: all(look(durable, each).runtime_status is RuntimeStatus.RUNNING for each in ids))

    # When the worker stops and another one starts
    durable.stop_worker()

    # Then they are as they were, and go on
    assert [(look(durable, each).runtime_status, look(durable, each).custom_status) for each in ids] == [(RuntimeStatus.RUNNING, None)] * 3
    durable.start_worker()
    for each in ids:
        durable.client.raise_event(each, "Go", "went")
    assert [finish(durable, each).output for each in ids] == ["went"] * 3


@pytest.mark.parametrize("how", [GeneratorExit, SystemExit, KeyboardInterrupt, StopIteration, RecursionError])
def test_an_orchestrator_that_raises_what_python_reserves_fails_by_itself(durable, how):  # rule 7
    @durable.orchestrator
    def raises(ctx):
        yield ctx.call_activity("double", 1)
        raise how("on purpose")

    durable.start_worker()
    status = run(durable, raises)
    assert status.runtime_status is RuntimeStatus.FAILED
    details = status.failure_details
    assert details.is_type(how) if how is not StopIteration else details.is_type(RuntimeError) and details.cause.is_type(StopIteration), details


def test_values_and_failures_are_the_same_when_another_app_runs_the_activity(make_durable):  # rule 55, rule 30
    # Given an app that only orchestrates, and one that only runs activities
    asks, does = make_durable(), make_durable()
    for durable in (asks, does):
        durable.exception(DeclinedError)

    @does.activity
    def price(order: Order) -> Receipt:
        if not order.items:
            raise DeclinedError("nothing to pay", code=5)
        return Receipt(order.id, order.items[0].price, PAID)

    @asks.orchestrator
    def buys(ctx, order: Order):
        receipt = yield ctx.call_activity("price", order, return_type=Receipt)
        plain = yield ctx.call_activity("price", order)
        try:
            yield ctx.call_activity("price", Order(order.id))
        except DeclinedError as error:
            return [receipt.total + 1, receipt.paid == PAID, plain["total"], error.code, error.args]

    asks.start_worker(orchestrations=["buys"], activities=[])
    does.start_worker(orchestrations=[], activities=["price"])
    assert run(asks, buys, ORDER).output == ["2.50", True, "1.50", 5, ["nothing to pay"]]


def test_a_changed_class_reads_what_older_code_wrote(make_durable):  # rule 55
    # Given an instance that waits, with an input and a result of the present class
    before = make_durable()

    @dataclass
    class Thing:
        name: str

    def main(ctx, thing: Thing):
        again = yield ctx.call_activity("same", thing, return_type=type(thing))
        yield ctx.wait_for_external_event("Go")
        return [thing.name, again.name, getattr(again, "size", "none")]

    main.__annotations__["thing"] = Thing
    before.activity(name="same")(lambda thing: thing)
    before.orchestrator(main)
    before.start_worker()
    instance_id = before.client.start("main", Thing("old"))
    until(lambda: "TaskCompleted" in event_names(before, instance_id))
    before.stop_worker()

    # When code with one more field, which has a default, takes it up
    after = make_durable()

    @dataclass
    class Larger:
        name: str
        size: int = 3

    def changed(ctx, thing: Larger):
        return (yield from main(ctx, thing))

    changed.__annotations__["thing"] = Larger
    after.activity(name="same")(lambda thing: thing)
    after.orchestrator(name="main")(changed)
    after.start_worker()
    after.client.raise_event(instance_id, "Go")

    # Then it replays, with the default
    assert finish(after, instance_id).output == ["old", "old", 3]
