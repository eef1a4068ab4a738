"""The table in docs/configuration.md is made from the options themselves; run this file to make it anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flask_durable.config import OPTIONS

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"
BEGIN, END = "<!-- begin of the generated table -->", "<!-- end of the generated table -->"


def table() -> str:
    rows = ["| Key | Default | Meaning |", "|---|---|---|"]
    rows += [f"| `{key}` | {shown(option.default)} | {option.text.replace('|', chr(92) + '|')} |" for key, option in OPTIONS.items()]
    return "\n".join(rows)


def shown(default: Any) -> str:
    return f"`{default!r}`"


def with_table(text: str) -> str:
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n\n{table()}\n\n{END}{rest.split(END)[1]}"


def test_the_table_of_keys_is_that_of_the_code():
    text = PAGE.read_text()
    assert text == with_table(text), f"run: python {Path(__file__).name}"


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text()))
