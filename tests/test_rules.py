"""The script that finds rules without a test reads comments as people write them."""

from __future__ import annotations

import subprocess
import sys

import pytest
import rules


@pytest.mark.parametrize(
    ("comment", "named"),
    [
        ("# RTY-3", {"RTY-3"}),
        ("# rule 36", {"rule 36"}),
        ("# rule 25, RTY-2", {"rule 25", "RTY-2"}),
        ("# rules 36, 38 and 40", {"rule 36", "rule 38", "rule 40"}),
        ("# rules 1 to 3, 7; DET-1 to DET-3", {"rule 1", "rule 2", "rule 3", "rule 7", "DET-1", "DET-2", "DET-3"}),
        ("# rule 9: never silent, in 30 seconds", {"rule 9"}),
        ("# rule 21 (b), rule 55", {"rule 21", "rule 55"}),
        ("# B4, DESIGN 3.2", set()),
    ],
)
def test_a_comment_names_rules(comment, named):
    assert rules.rules_named_in(comment) == named


def test_only_comments_on_the_def_line_of_a_test_count():
    source = "def test_one():  # RTY-1\n    pass  # RTY-2\n\n\ndef helper():  # RTY-3\n    pass\n\n\ndef test_two(\n    a,\n):  # RTY-4\n    pass\n"
    assert [rules.rules_named_in(comment) for _, comment in rules.comments_of_tests(source)] == [{"RTY-1"}, {"RTY-4"}]


def test_tests_name_no_rule_that_is_none():
    assert rules.unknown() == {}


def test_every_rule_has_a_test():
    assert rules.untested() == []


def test_the_script_prints_nothing_when_no_rule_is_without_a_test():
    result = subprocess.run([sys.executable, rules.__file__], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_the_script_prints_rules_with_the_tests_that_name_them():
    result = subprocess.run([sys.executable, rules.__file__, "--tests"], capture_output=True, text=True, check=True)
    assert [line.partition(": ")[0] for line in result.stdout.splitlines()] == rules.RULES
