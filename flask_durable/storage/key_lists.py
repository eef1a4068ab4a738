"""Lists of keys for statements that end in ``IN``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

_LONGEST_LIST = 64


def in_lists(keys: Sequence[Any]) -> Iterator[tuple[str, list[Any]]]:
    """Question marks and keys; the lists have few different lengths, so that statements are prepared once, and the last key fills them up."""
    for begin in range(0, len(keys), _LONGEST_LIST):
        some = list(keys[begin : begin + _LONGEST_LIST])
        length = next(size for size in (1, 8, _LONGEST_LIST) if size >= len(some))
        yield ", ".join("?" * length), some + some[-1:] * (length - len(some))
