"""What a worker runs, and why an instance finds none."""

from __future__ import annotations

import pytest

from flask_durable.core.capabilities import Capabilities, Runnable, waiting_reason
from flask_durable.core.versions import VersionMatch, VersionRule, version_key

STRICT, OLDER, NONE = VersionMatch.STRICT, VersionMatch.CURRENT_OR_OLDER, VersionMatch.NONE


@pytest.mark.parametrize(
    ("rule", "taken", "refused"),
    [
        (VersionRule("1.9", OLDER), [None, "1", "1.9", "01.9"], ["1.10", "1.9.1", "2", "beta"]),
        (VersionRule("1.10", OLDER), ["1.9", "1.10"], ["1.11"]),
        (VersionRule("1.9", STRICT), ["1.9", "01.9"], [None, "1", "1.10"]),
        (VersionRule("Beta", STRICT), ["beta", "BETA"], ["betas"]),
        (VersionRule("1", NONE), [None, "1", "2"], []),
        (VersionRule(None, OLDER), [None, "1", "99"], []),
        (VersionRule(None, STRICT), [None], ["0", "1"]),
        (VersionRule(None, NONE), [None, "1"], []),
    ],
)
def test_a_worker_takes_versions_by_its_rule(rule, taken, refused):  # VER-2, rule 49
    assert [version for version in [*taken, *refused] if rule.takes(version)] == taken


def test_a_refusal_names_both_versions():  # VER-3
    assert VersionRule("1.9", STRICT).refusal("2") == "The version '2' of the instance does not match the worker version '1.9'"
    assert VersionRule("1.9").refusal("1.10") == "The version '1.10' of the instance is greater than the worker version '1.9'"
    assert VersionRule("1.9", STRICT).refusal(None) == "The version None of the instance does not match the worker version '1.9'"


def test_a_worker_runs_what_one_of_its_registrations_fits():  # rule 50
    worker = Capabilities({"order": ("2", "3"), "any": (None, "2")}, frozenset({"pack"}), VersionRule("3"))
    cases = {("order", "1"): False, ("order", None): False, ("order", "2.5"): True, ("order", "4"): False, ("any", None): True, ("other", "2"): False}
    assert {case: worker.runs(*case) for case in cases} == cases
    assert worker.knows("order", "4")
    assert (worker.knows_activity("pack"), worker.knows_activity("ship")) == (True, False)
    assert worker.runnable() == Runnable(("any", "order"), {"order": version_key("2")}, ("", version_key("3")))
    assert Capabilities({}, frozenset(), VersionRule("3"), fails_mismatch=True).runnable() == Runnable(())


def test_capabilities_come_back_from_their_text():
    worker = Capabilities({"order": (None, "2")}, frozenset({"pack"}), VersionRule("2", STRICT), True, True, True)
    assert Capabilities.from_json(worker.to_json()) == worker
    assert Capabilities.from_json(Capabilities().to_json()) == Capabilities()


@pytest.mark.parametrize("text", [None, "", "{}", "[]", "nonsense", '{"orchestrators": 5}', '{"versionMatch": "what"}', '{"activities": 7}'])
def test_of_a_worker_that_says_nothing_legible_everything_is_thought_possible(text):
    assert Capabilities.from_json(text) == Capabilities()
    assert Capabilities().runs("anything", "1")
    assert Capabilities().knows_activity("anything")
    assert Capabilities().runnable() == Runnable()


PACKER = Capabilities({"pack": (None,)}, frozenset(), VersionRule("1"))
SELLER = Capabilities({"order": ("1", "2")}, frozenset(), VersionRule("2"))


@pytest.mark.parametrize(
    ("name", "version", "workers", "reason"),
    [
        ("order", "1", [], "no worker is running"),
        ("order", "1", [PACKER], "no running worker knows orchestrator 'order'"),
        ("order", None, [PACKER, SELLER], "no running worker has code for instances without version of orchestrator 'order' (registered: 1, 2)"),
        ("order", "0.9", [SELLER], "no running worker has code for version 0.9 of orchestrator 'order' (registered: 1, 2)"),
        ("pack", "2", [PACKER, SELLER], "no running worker takes version 2 (running: 1, currentOrOlder)"),
        ("order", "3", [SELLER], "no running worker takes version 3 (running: 2, currentOrOlder)"),
        ("order", "2", [PACKER, SELLER], None),
        ("order", "2", [Capabilities()], None),
        ("order", "3", [Capabilities({"order": (None,)}, frozenset(), VersionRule("2"), fails_mismatch=True)], None),
    ],
)
def test_an_instance_that_finds_no_worker_can_be_told_why(name, version, workers, reason):  # rule 49, WRK-5
    assert waiting_reason(name, version, workers) == reason
