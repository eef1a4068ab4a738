"""Which tags are allowed."""

from __future__ import annotations

import pytest

from flask_durable.core.tags import MAX_TAG_LENGTH, MAX_TAGS, check_tags
from flask_durable.errors import InvalidArgumentError


def test_tags_are_a_small_map_of_strings():
    assert check_tags(None) == {}
    assert list(check_tags({"b": "", "a": "ü\x00" + "x" * (MAX_TAG_LENGTH - 2)})) == ["a", "b"]


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        (["a"], "not list"),
        ("a", "not str"),
        ({"a": 1}, "'a' is not"),
        ({1: "a"}, "1 is not"),
        ({"a": None}, "'a' is not"),
        ({"a": "x" * (MAX_TAG_LENGTH + 1)}, "at most 256 characters"),
        ({"x" * 5000: "a"}, "at most 256 characters"),
        ({"a": "\ud800"}, "lone surrogate"),
        ({str(number): "" for number in range(MAX_TAGS + 1)}, "at most 50 strings; here are 51"),
    ],
)
def test_other_tags_are_refused_with_what_is_allowed(tags, message):
    with pytest.raises(InvalidArgumentError, match=message) as caught:
        check_tags(tags)
    assert len(str(caught.value)) < 500
