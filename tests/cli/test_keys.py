"""`flask durable create-key`: prints a key once, and an entry that knows only its hash."""

from __future__ import annotations

import json

import pytest

from flask_durable.keys import parse_keys


def test_the_key_and_its_entry_fit_and_only_the_result_goes_to_standard_output(run):  # S8
    result = run("create-key", "--name", "ci", "--permission", "start", "--permission", "read")
    assert result.exit_code == 0, result.stderr
    key, entry = result.stdout.splitlines()
    (made,) = parse_keys([json.loads(entry)])
    assert made.fits(key)
    assert (made.name, made.permissions) == ("ci", {"read", "start"})
    assert key not in entry
    assert key not in result.stderr


def test_json_has_both(run):
    document = json.loads(run("create-key", "--name", "ci", "--permission", "purge", "--json").stdout)
    (made,) = parse_keys([document["entry"]])
    assert made.fits(document["key"])


def test_every_call_makes_another_key(run):  # S8
    assert len({run("create-key", "--name", "ci", "--permission", "read").stdout for _ in range(3)}) == 3


@pytest.mark.parametrize(
    "words",
    [(), ("--name", "ci"), ("--permission", "read"), ("--name", "a b", "--permission", "read"), ("--name", "ci", "--permission", "everything")],
)
def test_wrong_usage_makes_no_key(run, words):
    result = run("create-key", *words)
    assert result.exit_code == 2
    assert "fdk_" not in result.output
