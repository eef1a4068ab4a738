"""Fixtures for tests with real processes, and the table of what they counted."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from chaos_harness import TABLE, Chaos


@pytest.fixture
def make_chaos(tmp_path: Path) -> Iterator[Callable[..., Chaos]]:
    """Makes the one folder of a test, with a configuration for its processes; they are killed at the end."""
    made: list[Chaos] = []

    def make(**config: Any) -> Chaos:
        made.append(Chaos(tmp_path, **config))
        return made[-1]

    yield make
    for chaos in made:
        chaos.close()


@pytest.fixture
def chaos(make_chaos: Callable[..., Chaos]) -> Chaos:
    return make_chaos()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not TABLE:
        return
    head = ("scenario", "fault", "runs", "kills", "expected", "counted", "repeated", "lost", "doubled", "broken", "remark")
    rows = [head, *(tuple(str(cell) for cell in row) for row in TABLE)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    terminalreporter.section("chaos")
    for row in rows:
        terminalreporter.write_line("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
