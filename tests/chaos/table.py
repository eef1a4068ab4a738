"""The table that is printed at the end of the session: what each scenario with faults has counted."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

HEAD = ("scenario", "fault", "runs", "kills", "expected", "counted", "repeated", "lost", "doubled", "broken", "remark")
"""``kills`` are kills or injected faults; ``expected`` and ``counted`` are effects; ``repeated`` ones are allowed for ordinary activities after a kill."""

TABLE: list[tuple[object, ...]] = []


def note(
    scenario: str,
    fault: str,
    *,
    runs: int = 1,
    kills: int = 0,
    expected: int = 0,
    counted: int = 0,
    repeated: int = 0,
    lost: int = 0,
    doubled: int = 0,
    broken: int = 0,
    remark: str = "",
) -> None:
    """Add a row; FLASK_DURABLE_TEST_TABLE names a file that gets all rows of all sessions, one JSON array a line."""
    row: tuple[Any, ...] = (scenario, fault, runs, kills, expected, counted, repeated, lost, doubled, broken, remark)
    TABLE.append(row)
    if "FLASK_DURABLE_TEST_TABLE" in os.environ:
        with Path(os.environ["FLASK_DURABLE_TEST_TABLE"]).open("a") as file:
            file.write(json.dumps(row) + "\n")


def lines() -> list[str]:
    """The table as text."""
    rows = [HEAD, *(tuple(str(cell) for cell in row) for row in TABLE)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
