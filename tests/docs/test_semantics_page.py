"""docs/semantics.md has one row for every rule, in order, and each says something."""

from __future__ import annotations

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import rules

TEXT = (Path(__file__).parents[2] / "docs" / "semantics.md").read_text()
ROWS = re.findall(r"^\| (\d+|[A-Z]{3}-\d+) \| (.+) \| (.+) \|$", TEXT, re.MULTILINE)


def test_every_rule_has_one_row():
    assert [f"rule {rule}" if rule.isdigit() else rule for rule, _, _ in ROWS] == rules.RULES


def test_every_row_asks_and_answers():
    assert [rule for rule, question, answer in ROWS if not question.endswith("?") or len(answer) < 10] == []
