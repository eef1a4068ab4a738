"""The order of versions."""

from __future__ import annotations

import random

import pytest

from flask_durable.core.ids import MAX_VERSION_LENGTH
from flask_durable.core.versions import MAX_KEY_LENGTH, version_key

ASCENDING = [None, "0", "0.9", "1", "1.0", "1.2", "1.9", "1.10", "1.10.1", "2", "10", "alpha", "Beta", "beta.2"]


def test_versions_compare_as_versions():  # VER-2, rule 49
    shuffled = ASCENDING[:]
    random.Random(7).shuffle(shuffled)
    assert sorted(shuffled, key=version_key) == ASCENDING


@pytest.mark.parametrize(("one", "other"), [("1.0", "01.0"), ("Beta", "BETA"), ("1.a", "1.A")])
def test_some_spellings_are_the_same_version(one, other):  # rule 49
    assert version_key(one) == version_key(other)


@pytest.mark.parametrize("version", ["1." * 50, "a." * 50, "\N{GREEK SMALL LETTER IOTA WITH DIALYTIKA AND TONOS}." * 50, "9" * MAX_VERSION_LENGTH])
def test_every_allowed_version_has_a_key_that_can_be_stored(version):
    assert len(version) <= MAX_VERSION_LENGTH
    assert len(version_key(version)) <= MAX_KEY_LENGTH
