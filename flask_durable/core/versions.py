"""Versions of orchestrations: one order for all, as a text that sorts like the versions it stands for, and what a worker takes (rule 49, VER-2).

A version is cut at its dots. Parts that are both numbers compare as numbers, others as text whatever its case, and a number is below a text;
a version that ends earlier is below, and no version at all is below every other.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

MAX_KEY_LENGTH = 500

_LENGTH_DIGITS = 3
_NUMBER, _TEXT = "1", "2"
_END = "\x01"


def version_key(version: str | None) -> str:
    """A text that sorts as the version does; empty for no version."""
    if version is None:
        return ""
    return "".join(map(_part_key, version.split(".")))


def _part_key(part: str) -> str:
    if part.isascii() and part.isdigit():
        digits = part.lstrip("0")
        return f"{_NUMBER}{len(digits):0{_LENGTH_DIGITS}}{digits}"
    return f"{_TEXT}{part.casefold()}{_END}"


class VersionMatch(StrEnum):
    """Which versions of instances a worker takes, compared with its own (VER-2)."""

    NONE = "none"
    STRICT = "strict"
    CURRENT_OR_OLDER = "currentOrOlder"


@dataclass(frozen=True, slots=True)
class VersionRule:
    """What a worker of that version takes.

    A worker without a version takes everything, unless the match is strict: then it takes what has no version either.
    """

    version: str | None = None
    match: VersionMatch = VersionMatch.CURRENT_OR_OLDER

    def bounds(self) -> tuple[str, str] | None:
        """The lowest and the highest key that is taken; None when all are."""
        if self.match is VersionMatch.NONE or (self.version is None and self.match is VersionMatch.CURRENT_OR_OLDER):
            return None
        key = version_key(self.version)
        return (key if self.match is VersionMatch.STRICT else "", key)

    def takes(self, version: str | None) -> bool:
        """Whether an instance of that version is taken."""
        bounds = self.bounds()
        return bounds is None or bounds[0] <= version_key(version) <= bounds[1]

    def refusal(self, version: str | None) -> str:
        """Why an instance of that version is not taken (VER-3)."""
        why = "does not match" if self.match is VersionMatch.STRICT else "is greater than"
        return f"The version {version!r} of the instance {why} the worker version {self.version!r}"
