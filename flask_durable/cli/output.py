"""Output: aligned tables and JSON on standard output, with nothing in user data that a terminal would obey."""

from __future__ import annotations

import json
import re
import sys
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any

import click

from flask_durable.logs import UNSAFE, safe

__all__ = ["Table", "color_status", "display_width", "echo", "echo_json", "print_fields", "safe", "to_json"]

Row = Sequence[str]
_Style = Callable[[str], str]

_GAP = "  "
_COLORS = {"Completed": "green", "Failed": "red", "Terminated": "red", "Suspended": "yellow", "Pending": "cyan", "Running": "cyan"}


def echo(text: str) -> None:
    """Print a line that is safe already; what the output's encoding lacks is escaped."""
    encoding = _encoding()
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = text.encode(encoding, "backslashreplace").decode(encoding)
    click.echo(text)


def echo_json(value: Any) -> None:
    """Print a value as indented JSON."""
    echo(to_json(value, indent=2))


def to_json(value: Any, *, indent: int | None = None) -> str:
    """JSON text that is safe on a terminal and means the same."""
    is_unicode = _encoding().lower().replace("-", "").startswith("utf")
    text = json.dumps(value, ensure_ascii=not is_unicode, indent=indent)
    # Inside JSON text such characters stand in strings only, except for the line ends of the indentation
    return "\n".join(UNSAFE.sub(_json_escaped, line) for line in text.split("\n"))


def color_status(text: str) -> str:
    """A runtime status, perhaps with blanks behind it, in its colour; click takes colours away where they are not wanted."""
    return click.style(text, fg=_COLORS.get(text.strip()))


class Table:
    """Rows under headings, in columns as wide as their widest cell so far.

    Args:
        headings: one for each column.
        styles: how to colour the cells of a column, by its heading.
    """

    def __init__(self, *headings: str, styles: dict[str, _Style] | None = None) -> None:
        self._headings = headings
        self._styles = styles or {}
        self._widths = [display_width(heading) for heading in headings]
        self._is_begun = False

    def print(self, rows: Sequence[Row]) -> None:
        """Print more rows; the first time with the headings."""
        cells = [[safe(cell) for cell in row] for row in rows]
        for row in cells:
            self._widths = [max(width, display_width(cell)) for width, cell in zip(self._widths, row, strict=True)]
        if not self._is_begun:
            self._is_begun = True
            echo(self._line(self._headings, {}))
        for row in cells:
            echo(self._line(row, self._styles))

    def _line(self, cells: Row, styles: dict[str, _Style]) -> str:
        parts = []
        for heading, width, cell in zip(self._headings, self._widths, cells, strict=True):
            padded = cell + " " * (width - display_width(cell))
            parts.append(styles[heading](padded) if heading in styles else padded)
        return _GAP.join(parts).rstrip()


def print_fields(fields: Sequence[tuple[str, str]], *, styles: dict[str, _Style] | None = None) -> None:
    """Print labels and values in two columns; a value may have several lines."""
    width = max(display_width(label) for label, _ in fields)
    for label, value in fields:
        style = (styles or {}).get(label, str)
        lines = [safe(line) for line in value.split("\n")]
        echo(f"{label:<{width}}{_GAP}{style(lines[0])}".rstrip())
        for line in lines[1:]:
            echo(f"{'':<{width}}{_GAP}{line}".rstrip())


def display_width(text: str) -> int:
    """How many columns a terminal needs for a text."""
    if text.isascii():
        return len(text)
    return sum(_character_width(character) for character in text)


def _character_width(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _encoding() -> str:
    return getattr(sys.stdout, "encoding", None) or "utf-8"


def _json_escaped(match: re.Match[str]) -> str:
    return f"\\u{ord(match.group()):04x}"
