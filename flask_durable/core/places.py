"""Places inside a value, for messages: the way from the whole to a part."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

Place: TypeAlias = "tuple[Place, int | str] | None"
"""The way to a part of a value, last step first; None is the value itself."""

_MAX_SHOWN = 200


def at(place: Place) -> str:
    """The place as Python would write it, after the word ``at``; nothing for the value itself."""
    if place is None:
        return ""
    steps: list[str] = []
    while place is not None:
        place, step = place
        steps.append(f"[{step}]" if isinstance(step, int) else f".{step}")
    text = "".join(reversed(steps))
    return f" at {text[:_MAX_SHOWN]}".encode("utf-8", "replace").decode()


def below(place: Place, steps: Iterable[int | str]) -> Place:
    """The place that these further steps lead to."""
    for step in steps:
        place = (place, step)
    return place
