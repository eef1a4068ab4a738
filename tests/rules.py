"""The rules of docs/semantics.md that no test names: `python tests/rules.py` prints them, `--tests` prints every rule with its tests.

A test names the rules that it shows in a comment on its `def` line: `# RTY-3, rule 25`, `# rules 36 and 38`, `# rules 1 to 5; DET-1 to DET-4`.
"""

from __future__ import annotations

import argparse
import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parent

NUMBERED = [number for number in range(1, 58) if number not in (51, 52, 53)]
"""The numbered rules; 51 to 53 are about entities, of which only the names are reserved."""

GROUPS = {
    "REG": 5,
    "SCH": 9,
    "DET": 12,
    "ACT": 5,
    "RTY": 7,
    "TIM": 5,
    "TSK": 5,
    "EVT": 7,
    "SUB": 3,
    "CAN": 4,
    "MGT": 6,
    "REW": 5,
    "QRY": 4,
    "VER": 3,
    "WRK": 6,
}
"""The groups, each with the number of its last rule."""

RULES = [f"rule {number}" for number in NUMBERED] + [f"{group}-{number}" for group, last in GROUPS.items() for number in range(1, last + 1)]

NUMBERS = re.compile(r"\brules? (\d+(?:(?:, | and | to |, and )\d+)*)")
NAMES = re.compile(rf"\b({'|'.join(GROUPS)})-(\d+)(?: to (?:\1-)?(\d+))?")
RANGE = re.compile(r"(\d+)(?: to (\d+))?")


def rules_named_in(comment: str) -> set[str]:
    """The rules that a comment names, ranges written out."""
    named = set()
    for listed in NUMBERS.findall(comment):
        named |= {f"rule {number}" for first, last in RANGE.findall(listed) for number in numbers(first, last)}
    for group, first, last in NAMES.findall(comment):
        named |= {f"{group}-{number}" for number in numbers(first, last)}
    return named


def numbers(first: str, last: str) -> range:
    return range(int(first), int(last or first) + 1)


def comments_of_tests(source: str) -> Iterator[tuple[str, str]]:
    """Name and comments of each test; a signature of several lines may have its comment on any of them."""
    lines = source.splitlines(keepends=True)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test"):
            signature = "".join(lines[node.lineno - 1 : max(node.lineno, node.body[0].lineno - 1)])
            tokens = tokenize.generate_tokens(io.StringIO(signature).readline)
            yield node.name, " ".join(token.string for token in tokens if token.type == tokenize.COMMENT)


def tests_by_rule() -> dict[str, list[str]]:
    """Each rule with the tests that name it; a rule that is none has a place too."""
    found: dict[str, list[str]] = {rule: [] for rule in RULES}
    for path in sorted(TESTS.rglob("test_*.py")):
        for test, comment in comments_of_tests(path.read_text(encoding="utf-8")):
            for rule in rules_named_in(comment):
                found.setdefault(rule, []).append(f"{path.relative_to(TESTS)}::{test}")
    return found


def untested() -> list[str]:
    """The rules that no test names."""
    return [rule for rule, tests in tests_by_rule().items() if not tests]


def unknown() -> dict[str, list[str]]:
    """What tests name as a rule and is none."""
    return {rule: tests for rule, tests in tests_by_rule().items() if rule not in RULES}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tests", action="store_true", help="print every rule with the tests that name it")
    if parser.parse_args().tests:
        for rule, tests in tests_by_rule().items():
            print(f"{rule}: {', '.join(tests) or 'none'}")
    else:
        for rule in untested():
            print(rule)
    for rule, tests in unknown().items():
        print(f"not a rule: {rule}, named by {', '.join(tests)}", file=sys.stderr)
    return 1 if untested() or unknown() else 0


if __name__ == "__main__":
    sys.exit(main())
