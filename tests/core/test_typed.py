"""Values of all kinds: written as JSON, and read as the type that an annotation names."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import json
import logging
import typing
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, NotRequired, TypedDict, TypeVar
from uuid import UUID

import marshmallow as ma
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_durable.core import codec
from flask_durable.core.typed import PLAIN, value_type
from flask_durable.errors import InvalidArgumentError, TypeMismatchError

Number = TypeVar("Number")
Sku = NewType("Sku", str)


class Colour(enum.Enum):
    RED = "red"
    PAIR = (1, 2)


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Access(enum.Flag):
    READ = 1
    WRITE = 2


class Point(NamedTuple):
    x: int
    y: Decimal = Decimal(0)


class Address(TypedDict):
    city: str
    since: NotRequired[date]


@dataclass(frozen=True)
class Item:
    sku: str
    price: Decimal
    colours: frozenset[Colour] = frozenset()


@dataclass
class Order:
    id: UUID
    items: list[Item]
    placed: datetime
    notes: dict[str, bytes] = field(default_factory=dict)
    gift: Item | None = None
    level: Level = Level.LOW
    total: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.total = len(self.items)


@dataclass
class Tree:
    name: str
    below: list[Tree] = field(default_factory=list)


@dataclass
class All:
    parts: list[All | Some | int]


@dataclass
class Some:
    parts: list[All | Some | int]


@dataclass
class Box(Generic[Number]):
    content: Number


@dataclass
class Positive:
    amount: int

    def __post_init__(self) -> None:
        if self.amount <= 0:
            raise ValueError("the amount is more than 0")


class ItemSchema(ma.Schema):
    sku = ma.fields.String(required=True)
    price = ma.fields.Decimal(as_string=True)


class OrderSchema(ma.Schema):
    items = ma.fields.List(ma.fields.Nested(ItemSchema))
    placed = ma.fields.AwareDateTime()


ORDER = Order(
    UUID(int=7),
    [Item("a", Decimal("1.50"), frozenset({Colour.RED, Colour.PAIR})), Item("b", Decimal("0E-10"))],
    datetime(2024, 2, 29, 23, 59, 59, 999999, UTC),
    {"n": b"\x00\xff"},
    Item("c", Decimal(3)),
    Level.HIGH,
)


def written(value: Any, hint: Any = Any) -> str | None:
    return value_type(hint, what="test").encode(value, what="input", max_bytes=10**6, max_depth=64)


def read(text: str | None, hint: Any) -> Any:
    return value_type(hint, what="test").decode(text, what="input of activity 'a'")


def round_trip(value: Any, hint: Any) -> Any:
    back = read(written(value, hint), hint)
    assert back == value
    assert type(back) is type(value)
    return back


def misfit(value: Any, hint: Any) -> str:
    with pytest.raises(TypeMismatchError) as caught:
        read(json.dumps(value), hint)
    return str(caught.value).removeprefix("The input of activity 'a' does not fit")


@pytest.mark.parametrize(
    ("value", "text", "hint"),
    [
        (Colour.RED, '"red"', Colour),
        (Colour.PAIR, "[1,2]", Colour),
        (Level.HIGH, "2", Level),
        (Access.READ | Access.WRITE, "3", Access),
        (datetime(2024, 1, 2, 3, 4, 5), '"2024-01-02T03:04:05"', datetime),
        (datetime(1, 1, 1, tzinfo=UTC), '"0001-01-01T00:00:00+00:00"', datetime),
        (datetime(9999, 12, 31, 23, 59, 59, 999999), '"9999-12-31T23:59:59.999999"', datetime),
        (datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=-5, minutes=-30))), '"2024-01-01T00:00:00-05:30"', datetime),
        (date(1, 1, 1), '"0001-01-01"', date),
        (time(1, 2, 3, 4), '"01:02:03.000004"', time),
        (timedelta(days=1, seconds=2, microseconds=500_000), '"P1DT2.5S"', timedelta),
        (timedelta(microseconds=-1), '"-P0DT0.000001S"', timedelta),
        (timedelta(0), '"P0D"', timedelta),
        (timedelta.min, '"-P999999999D"', timedelta),
        (timedelta.max, '"P999999999DT86399.999999S"', timedelta),
        (Decimal("1.50"), '"1.50"', Decimal),
        (Decimal("1E+999"), '"1E+999"', Decimal),
        (UUID(int=1), '"00000000-0000-0000-0000-000000000001"', UUID),
        (b"\x00\xff", '"AP8="', bytes),
        ({3, 1, 2}, "[1,2,3]", set[int]),
        (frozenset({"b", "a"}), '["a","b"]', frozenset[str]),
        ((1, "a"), '[1,"a"]', tuple[int, str]),
        ((1, 2, 3), "[1,2,3]", tuple[int, ...]),
        (Point(1, Decimal("2.5")), '[1,"2.5"]', Point),
        ({"city": "Rome", "since": date(2024, 1, 1)}, '{"city":"Rome","since":"2024-01-01"}', Address),
        (Item("a", Decimal(1)), '{"sku":"a","price":"1","colours":[]}', Item),
        (Tree("a", [Tree("b", [Tree("c")])]), '{"name":"a","below":[{"name":"b","below":[{"name":"c","below":[]}]}]}', Tree),
        (None, None, Item | None),
    ],
)
def test_each_kind_of_value_has_its_json_and_comes_back(value: Any, text: str, hint: Any) -> None:  # rule 55, B4
    assert written(value) == text
    round_trip(value, hint)


def test_whole_structures_come_back_as_new_objects() -> None:  # rule 55
    back = round_trip(ORDER, Order)
    assert back.total == 2
    assert back.items is not ORDER.items
    assert round_trip({"all": [ORDER]}, dict[str, list[Order]])["all"][0].items[0].colours == {Colour.RED, Colour.PAIR}
    assert str(back.items[1].price) == "0E-10"


def test_no_type_is_written_and_without_annotation_values_stay_as_json_has_them() -> None:  # rule 55
    text = written(ORDER)
    assert text is not None
    assert "Order" not in text
    assert read(text, Any) == json.loads(text)
    assert value_type(Any, what="test") is PLAIN


def test_sets_are_written_in_one_order_whatever_their_hashes() -> None:
    assert written({"b", "aa", "a"}) == '["a","aa","b"]'
    assert written({1, "a", None}) == '["a",1,null]'
    assert written({(2, "x"), (10, "a")}) == '[[10,"a"],[2,"x"]]'


def test_a_moment_that_comes_twice_keeps_its_offset() -> None:  # B4
    from zoneinfo import ZoneInfo

    first, second = (datetime(2024, 10, 27, 2, 30, tzinfo=ZoneInfo("Europe/Rome"), fold=fold) for fold in (0, 1))
    assert (written(first), written(second)) == ('"2024-10-27T02:30:00+02:00"', '"2024-10-27T02:30:00+01:00"')
    assert read(written(second), datetime).astimezone(UTC) == second.astimezone(UTC)


@pytest.mark.parametrize(
    ("value", "hint", "expected"),
    [
        (5, float, 5.0),
        (5, int | float, 5),
        (5, float | int, 5),
        (9.99, Decimal, Decimal("9.99")),
        (3, Decimal, Decimal(3)),
        ("2024-01-01T00:00:00Z", datetime, datetime(2024, 1, 1, tzinfo=UTC)),
        (1.5, timedelta, timedelta(seconds=1.5)),
        ("PT1H30M", timedelta, timedelta(minutes=90)),
        ("P2W", timedelta, timedelta(weeks=2)),
        ([1, 1], set[int], {1}),
        ([1], list, [1]),
        ([1], typing.Sequence[int], [1]),
        ({"a": 1}, typing.Mapping[str, int], {"a": 1}),
        ({"red": 1}, dict[Literal["red"], int], {"red": 1}),
        ("x", Sku, "x"),
        ("x", Annotated[str, "doc"], "x"),
        ("a", Literal["a", "b"], "a"),
        ("red", Literal[Colour.RED], Colour.RED),
        ({"content": 1}, Box[int], Box(1)),
        ({"x": 1}, Point, Point(1)),
        ({"city": "Rome", "more": 1}, Address, {"city": "Rome", "more": 1}),
        ("2024-01-01", date | str, date(2024, 1, 1)),
        ("soon", date | str, "soon"),
        ([], tuple[()], ()),
        ([{"sku": "a", "price": "1"}], tuple, ({"sku": "a", "price": "1"},)),
    ],
)
def test_what_else_is_read(value: Any, hint: Any, expected: Any) -> None:  # rule 55
    back = read(json.dumps(value), hint)
    assert back == expected
    assert type(back) is type(expected)


@pytest.mark.parametrize(
    ("value", "hint", "message"),
    [
        ("1", int, ": expected int, found the text '1'"),
        (True, int, ": expected int, found true"),
        (1.0, int, ": expected int, found 1.0"),
        (1, bool, ": expected bool, found 1"),
        (1, str, ": expected str, found 1"),
        ("x" * 100, int, ": expected int, found a text of 100 characters"),
        ({}, float, ": expected float, found an object"),
        ([1, 2], str, ": expected str, found a list of 2"),
        (10**400, float, ": expected float, found 1000"),
        ("NaN", Decimal, ": expected Decimal, found the text 'NaN'"),
        ("yesterday", datetime, ": expected datetime (ISO 8601), found the text 'yesterday'"),
        ("P", timedelta, ": expected timedelta (an ISO 8601 duration such as 'P1DT2.5S', or seconds), found the text 'P'"),
        (1e300, timedelta, ": expected timedelta"),
        ("***", bytes, ": expected bytes (base64), found the text '***'"),
        ("blue", Colour, ": expected one of 'red', [1, 2], found the text 'blue'"),
        (True, Level, ": expected one of 1, 2, found true"),
        (8, Access, ": expected one of 1, 2, found 8"),
        (1, Literal[True], ": expected one of True, found 1"),
        ({"sku": "a"}, Item, ": the field 'price' of Item is missing"),
        ({"sku": "a", "price": 1, "size": 2}, Item, ": Item has no field 'size'; its fields are sku, price, colours"),
        ([1, 2, 3], Point, ": expected Point, found a list of 3"),
        ([1, 2], tuple[int], ": expected a list of 1, found a list of 2"),
        ([[1], [2, "x"]], list[list[int]], " at [1][1]: expected int, found the text 'x'"),
        ({"a": {"b": [None]}}, dict[str, dict[str, list[int]]], " at .a.b[0]: expected int, found null"),
        ({"city": 1}, Address, " at .city: expected str, found 1"),
        (None, Item, ": expected Item, found null"),
        ({"sku": "a", "price": "x"}, Item | None, " at .price: expected Decimal, found the text 'x'"),
        ("x", int | None, ": expected int or null, found the text 'x'"),
        ({"amount": 0}, Positive, ": the amount is more than 0"),
        ([{"amount": 1}, {"amount": -1}], list[Positive], " at [1]: the amount is more than 0"),
        ([{}], set[dict], ": expected set: "),
        ({"items": [{"sku": "a"}, {}], "placed": "2024-01-01T00:00:00Z"}, OrderSchema, " at .items[1].sku: Missing data for required field."),
    ],
)
def test_what_does_not_fit_is_refused_with_its_place(value: Any, hint: Any, message: str) -> None:  # rule 55
    assert misfit(value, hint).startswith(message)


def test_members_of_a_union_that_hold_the_union_read_each_part_once() -> None:  # B4
    for inner in ("bad", {"parts": [1, "bad"]}):
        value: Any = inner
        for _ in range(30):
            value = {"parts": [value, 1]}
        assert misfit(value, All | Some) == ": expected All or Some, found an object"
    nested = All([Some([1]), All([])])
    assert read(written(nested), All | Some) == All([All([1]), All([])])


def test_schemas_write_and_read_values_of_their_own() -> None:  # rule 55
    value = {"items": [{"sku": "a", "price": Decimal("1.5")}], "placed": datetime(2024, 1, 1, tzinfo=UTC)}
    text = '{"items":[{"sku":"a","price":"1.5"}],"placed":"2024-01-01T00:00:00+00:00"}'
    for hint in (OrderSchema, OrderSchema(), Annotated[dict, OrderSchema()], OrderSchema | None):
        assert written(value, hint) == text
        assert written(json.loads(text), hint) == text
        assert read(text, hint) == value
    assert read(written([value], list[OrderSchema]), list[OrderSchema]) == [value]
    assert read("null", OrderSchema | None) is None
    with pytest.raises(TypeMismatchError, match="The input cannot be written by its schema"):
        written({"placed": object()}, OrderSchema)


def test_models_write_and_read_themselves() -> None:  # rule 55
    pydantic = pytest.importorskip("pydantic")

    class Line(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(strict=True, extra="forbid")
        sku: str = pydantic.Field(alias="itemSku")
        when: datetime
        price: Decimal

        @pydantic.computed_field
        def shown(self) -> str:
            return f"{self.sku}: {self.price}"

    @dataclass
    class Bill:
        lines: list[Line]

    line = Line(itemSku="a", when=datetime(2024, 1, 1, tzinfo=UTC), price=Decimal("1.5"))
    assert written(line) == '{"itemSku":"a","when":"2024-01-01T00:00:00Z","price":"1.5"}'
    round_trip(line, Line)
    round_trip([line], list[Line])
    assert dataclasses.replace(Bill([line])) == Bill([line])
    assert misfit({"itemSku": 1, "when": "2024-01-01T00:00:00Z", "price": "1"}, Line) == " at .itemSku: Input should be a valid string"
    assert misfit([{"itemSku": "a"}], list[Line]).startswith(" at [0].when: Field required")


def test_annotations_that_are_no_such_types_are_reported_and_let_values_pass(caplog: pytest.LogCaptureFixture) -> None:
    class Opaque:
        pass

    @dataclass
    class Holds:
        what: Opaque
        lost: Missing  # type: ignore[name-defined]  # noqa: F821

    with caplog.at_level(logging.WARNING, "flask_durable.core"):
        assert read('{"a":1}', Opaque) == {"a": 1}
        assert read("[1]", list[Opaque]) == [1]
        assert read("[1]", Opaque | None) == [1]
        assert read("1", [int]) == 1
        assert read('{"what":1,"lost":2}', Holds) == Holds(1, 2)  # type: ignore[arg-type]
    assert "is no type that values are made of" in caplog.text
    assert "The annotations of" in caplog.text


def test_values_that_cannot_be_written_are_refused_with_their_place() -> None:  # rule 55, B4
    @dataclass
    class Knot:
        inner: Any

    knot = Knot(None)
    knot.inner = [knot]
    wide: list[Any] = [Knot(1)]
    wide += [wide, wide]
    for value, message in [
        ({"a": [Knot(object())]}, "contains a builtins.object at .a[0].inner; allowed are"),
        (knot, "nested too deeply, or contains itself"),
        (wide, "nested too deeply, or contains itself"),
        (Knot(float("nan")), "contains nan at .inner, which JSON cannot carry"),
        ([Decimal("Infinity")], "contains Decimal('Infinity') at [0], which JSON cannot carry"),
        ([b"x", "\ud800"], "contains a lone surrogate at [1]"),
        ([b"x", {1: 2}], "has a key 1 of type int at [1]"),
        ([b"x", 10**1000], "more than 1000 digits at [1]"),
        ({Colour.RED: b""}, "has a key <Colour.RED: 'red'> of type Colour"),
        (Knot, "contains a builtins.type"),
    ]:
        with pytest.raises(InvalidArgumentError) as caught:
            written(value)
        assert message in str(caught.value)


def test_a_dataclass_that_lost_a_field_cannot_be_written() -> None:
    item = Positive(1)
    del item.amount
    with pytest.raises(InvalidArgumentError, match="contains a Positive without its field 'amount'"):
        written(item)


# -- round trips of anything

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=12,
)
zones = st.just(None) | st.just(UTC) | st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes)))
leaves: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (int, st.integers()),
    (float, st.floats(allow_nan=False, allow_infinity=False)),
    (str, texts),
    (bool, st.booleans()),
    (datetime, st.datetimes(timezones=zones)),
    (date, st.dates()),
    (time, st.times()),
    (timedelta, st.timedeltas()),
    (Decimal, st.decimals(allow_nan=False, allow_infinity=False)),
    (UUID, st.uuids()),
    (bytes, st.binary(max_size=10)),
    (Colour, st.sampled_from(Colour)),
    (Level, st.sampled_from(Level)),
    (Literal["a", 1], st.sampled_from(["a", 1])),
]
items = st.builds(Item, texts, st.decimals(allow_nan=False, allow_infinity=False), st.frozensets(st.sampled_from(Colour)))
orders = st.builds(
    Order,
    st.uuids(),
    st.lists(items, max_size=3),
    st.datetimes(timezones=zones),
    st.dictionaries(texts, st.binary(max_size=4), max_size=2),
    st.none() | items,
    st.sampled_from(Level),
)


def containers(inner: tuple[Any, st.SearchStrategy[Any]]) -> st.SearchStrategy[tuple[Any, Any]]:
    hint, values = inner
    return st.one_of(
        st.tuples(st.just(list[hint]), st.lists(values, max_size=3)),
        st.tuples(st.just(tuple[hint, ...]), st.lists(values, max_size=3).map(tuple)),
        st.tuples(st.just(tuple[hint, str]), st.tuples(values, texts)),
        st.tuples(st.just(dict[str, hint]), st.dictionaries(texts, values, max_size=3)),
        st.tuples(st.just(hint | None), values | st.none()),
        st.tuples(st.just(frozenset[hint]), st.frozensets(values, max_size=3)),
    )


@given(json_values)
def test_any_json_value_comes_back_unchanged(value: Any) -> None:  # rule 55, SCH-9
    text = codec.encode(value, what="input", max_depth=100)
    assert repr(codec.decode(text)) == repr(value)


@given(st.one_of([st.tuples(st.just(hint), values) for hint, values in leaves]) | st.sampled_from(leaves).flatmap(containers))
def test_any_typed_value_comes_back_unchanged(case: tuple[Any, Any]) -> None:  # rule 55
    hint, value = case
    back = round_trip(value, hint)
    assert written(back, hint) == written(value, hint)


@given(st.dictionaries(texts, orders, max_size=2))
def test_any_structure_comes_back_unchanged(value: dict[str, Order]) -> None:  # rule 55
    round_trip(value, dict[str, Order])


@given(json_values, st.sampled_from([Order, Item, Point, Address, Tree, *(hint for hint, _ in leaves)]))
def test_any_json_value_is_read_or_refused_and_nothing_else(value: Any, hint: Any) -> None:  # rule 55
    kind = value_type(list[hint] | hint, what="test")
    for each in (value, [value]):
        with contextlib.suppress(TypeMismatchError):
            kind.decode(json.dumps(each), what="input")
