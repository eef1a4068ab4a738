from __future__ import annotations

import math
from collections import OrderedDict
from enum import IntEnum, StrEnum
from typing import Any, NamedTuple

import pytest

from flask_durable.core import codec
from flask_durable.core.plain import ALLOWED
from flask_durable.errors import InvalidArgumentError, PayloadTooLargeError


class Colour(StrEnum):
    RED = "red"


class Level(IntEnum):
    HIGH = 3


class Point(NamedTuple):
    x: int
    y: int


def refusal(value: Any, **limits: int) -> str:
    with pytest.raises(InvalidArgumentError) as caught:
        codec.encode(value, what="input", **limits)
    return str(caught.value)


def nested(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels - 1):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (False, "false"),
        ("", '""'),
        ([], "[]"),
        ({}, "{}"),
        (True, "true"),
        (1.0, "1.0"),
        (-0.0, "-0.0"),
        (5e-324, "5e-324"),
        (10**1000 - 1, "9" * 1000),
        (1 - 10**1000, "-" + "9" * 1000),
        ("grüße 😀 \x00 \u2028", '"grüße 😀 \\u0000 \u2028"'),
        ([1, [None, {"a": [True]}]], '[1,[null,{"a":[true]}]]'),
    ],
)
def test_json_values_come_back_unchanged(value: Any, text: str) -> None:  # SCH-4, rule 55
    assert codec.encode(value, what="input") == text
    back = codec.decode(text)
    assert back == value
    assert type(back) is type(value)


def test_negative_zero_keeps_its_sign() -> None:
    assert math.copysign(1, codec.decode(codec.encode(-0.0, what="input"))) == -1


def test_none_is_absent() -> None:  # SCH-4
    assert codec.encode(None, what="input") is None
    assert codec.decode(None) is None
    assert codec.encode([None], what="input") == "[null]"


def test_what_only_extends_a_json_type_comes_back_as_that_type() -> None:  # rule 55
    value = {"tuple": (1, 2), "named": Point(3, 4), Colour.RED: Colour.RED, "level": Level.HIGH, "ordered": OrderedDict(b=1, a=2)}
    back = codec.decode(codec.encode(value, what="input"))
    assert back == {"tuple": [1, 2], "named": [3, 4], "red": "red", "level": 3, "ordered": {"b": 1, "a": 2}}
    assert [type(each) for each in back.values()] == [list, list, str, int, dict]
    assert list(back["ordered"]) == ["b", "a"]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (object, f"The input contains a builtins.type; {ALLOWED}"),
        ({"a": [0, {"b": 1j}]}, f"The input contains a builtins.complex at .a[1].b; {ALLOWED}"),
        ([range(2)], f"The input contains a builtins.range at [0]; {ALLOWED}"),
        (bytearray(b"x"), f"The input contains a builtins.bytearray; {ALLOWED}"),
        ([float("nan")], "The input contains nan at [0], which JSON cannot carry"),
        ({"a": float("inf")}, "The input contains inf at .a, which JSON cannot carry"),
        (float("-inf"), "The input contains -inf, which JSON cannot carry"),
        ({1: "a"}, "The input has a key 1 of type int; JSON keys are strings"),
        ([{"a": {None: 1}}], "The input has a key None of type NoneType at [0].a; JSON keys are strings"),
        ({(1, 2): 1}, "The input has a key (1, 2) of type tuple; JSON keys are strings"),
        (10**1000, "The input contains an integer of more than 1000 digits"),
        ([-(10**1000)], "The input contains an integer of more than 1000 digits at [0]"),
        ([10**5000], "The input contains an integer of more than 1000 digits at [0]"),
        ("\ud800", "The input contains a lone surrogate, which is no Unicode text"),
        ({"a": ["x", "\udfff"]}, "The input contains a lone surrogate at .a[1], which is no Unicode text"),
        ({"a": {"\ud800": 1}}, "The input contains a lone surrogate at .a, which is no Unicode text"),
    ],
)  # fmt: skip
def test_everything_else_is_refused_with_its_place(value: Any, message: str) -> None:  # rule 55
    assert refusal(value) == message


def test_nesting_is_limited_and_the_message_names_the_limit_in_force() -> None:
    assert codec.encode(nested(3), what="input", max_depth=3) == "[[[]]]"
    text = "The input is nested too deeply, or contains itself; at most 3 levels are allowed (DURABLE_MAX_PAYLOAD_DEPTH)"
    assert refusal(nested(4), max_depth=3) == text
    assert refusal({"a": {"b": {"c": {}}}}, max_depth=3) == text
    assert codec.encode(nested(codec.DEFAULT_MAX_DEPTH), what="input") is not None
    assert "at most 64 levels" in refusal(nested(codec.DEFAULT_MAX_DEPTH + 1))


def test_nesting_beyond_the_interpreters_stack_is_refused_too() -> None:
    assert "cannot be encoded" in refusal(nested(100_000), max_depth=1_000_000)


def test_values_that_contain_themselves_are_refused() -> None:
    cyclic: list[Any] = []
    cyclic += [cyclic, cyclic]
    keyed: dict[str, Any] = {}
    keyed["self"] = keyed
    assert "contains itself" in refusal(cyclic)
    assert "contains itself" in refusal(keyed)


def test_lists_that_hold_each_other_twice_are_refused_in_no_time() -> None:
    value: list[Any] = [0]
    for _ in range(60):
        value = [value, value]
    with pytest.raises(PayloadTooLargeError):
        codec.encode(value, what="input")


def test_the_size_is_counted_in_bytes_of_utf_8() -> None:
    assert codec.encode("ab", what="input", max_bytes=4) == '"ab"'
    assert codec.encode("ü", what="input", max_bytes=4) == '"ü"'
    with pytest.raises(PayloadTooLargeError) as caught:
        codec.encode("üü", what="output", max_bytes=5)
    assert (caught.value.what, caught.value.size, caught.value.limit) == ("output", 6, 5)


def test_a_hundred_kilobytes_survive() -> None:  # SCH-9
    value = ["grüße" * 10] * 2000
    assert codec.decode(codec.encode(value, what="input")) == value


def test_text_from_outside_is_parsed_by_the_same_rules() -> None:
    assert codec.parse(b'{"a": [1, 1.5, null, "\xc3\xbc", "\\ud83d\\ude00"]}', what="body") == {"a": [1, 1.5, None, "ü", "😀"]}
    assert codec.parse("\n 0 ", what="body") == 0
    assert codec.parse(b"\xef\xbb\xbf1", what="body") == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "The body is not valid JSON: Expecting value: line 1 column 1 (char 0)"),
        ("{'a': 1}", "The body is not valid JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
        ("[NaN]", "The body is not valid JSON: NaN is not JSON"),
        ("-Infinity", "The body is not valid JSON: -Infinity is not JSON"),
        ("[1e999]", "The body contains inf at [0], which JSON cannot carry"),
        ("1" * 1001, "The body contains an integer of more than 1000 digits"),
        (b"\xff", "The body is not UTF-8 text"),
        ('"a"'.encode("utf-16"), "The body is not UTF-8 text"),
        ('{"a": "\\ud800"}', "The body contains a lone surrogate at .a, which is no Unicode text"),
        ("[" * 65 + "]" * 65, "The body is nested too deeply, or contains itself; at most 64 levels are allowed (DURABLE_MAX_PAYLOAD_DEPTH)"),
        ("[" * 200_000, "The body is nested too deeply; at most 64 levels are allowed"),
    ],
)
def test_text_from_outside_that_is_no_such_json_is_refused(text: str | bytes, message: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        codec.parse(text, what="body")
    assert str(caught.value) == message
