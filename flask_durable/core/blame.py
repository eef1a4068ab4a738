"""Blame: which failed calls made an orchestration fail, and up to where its history was sound; what a rewind goes by (rule 45).

The code knows of a failure from the moment it is raised at a yield, or the code gets or asks a task that shows it. Up to that moment all it
did would have been the same had the call not failed. That moment is kept for every failed call, as the length of the history at that time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from flask_durable.core.failure import TaskFailedError

_HANDLED_BY_POLICY = 0
_MAX_NESTING = 50
_NOTE = "__durable_sighting"


class Verdict(NamedTuple):
    """Why the code failed.

    Args:
        blamed: numbers of the failed calls that made it fail; empty when the code failed by itself.
        unseen: numbers of the failed calls of which it did not know when it was sound.
        sound_until: length of the history when it was sound: before it knew of the first blamed failure, or before the failing turn.
    """

    blamed: tuple[int, ...]
    unseen: tuple[int, ...]
    sound_until: int


class Sighting:
    """A failed call, and since when the code knows of it."""

    __slots__ = ("_length", "seen_at", "task_id", "was_raised")

    def __init__(self, task_id: int, length: Callable[[], int]) -> None:
        self.task_id = task_id
        self._length = length
        self.seen_at: int | None = None
        self.was_raised = False

    def see(self, *, is_raised: bool) -> None:
        """The code learns of the failure."""
        self.was_raised |= is_raised
        if self.seen_at is None:
            self.seen_at = self._length()

    def is_later_than(self, length: int) -> bool:
        """Whether the code did not know of the failure when the history had that length; one that it has handled there it did know."""
        return self.seen_at is None or self.seen_at > length or (self.seen_at == length and not self.was_raised)


class Blame:
    """The failed calls of one execution.

    Args:
        length: gives the number of the last event of the history at this moment, with what the code has asked for so far.
    """

    def __init__(self, length: Callable[[], int]) -> None:
        self._length = length
        self._sightings: list[Sighting] = []

    def failed(self, task_id: int, error: TaskFailedError) -> None:
        """A call failed; the error is what the code will get.

        Args:
            task_id: number of this attempt, not of the first one.
            error: the error.
        """
        vars(error)[_NOTE] = sighting = Sighting(task_id, self._length)
        self._sightings.append(sighting)

    def verdict(self, error: BaseException, turn_began_at: int, latest: int | None = None) -> Verdict:
        """What a failure of the code is to be blamed on.

        An error that is a failed call's, is caused by one, or was raised while one was handled, is blamed on that call; a group on its members.
        Any other error is blamed on what failed calls the code got to see, without having them raised, in the turn in which it failed.

        Args:
            error: what the code raised.
            turn_began_at: length of the history before the present turn.
            latest: the history was sound up to there at most, because what the code did after that is not in it.
        """
        blamed = [sighting for sighting in sightings_in(error) if sighting in self._sightings]
        if not blamed:
            blamed = [each for each in self._sightings if not each.was_raised and (each.seen_at or 0) > turn_began_at]
        if blamed:
            sound_until = min(self._length() if each.seen_at is None else each.seen_at for each in blamed)
            sound_until = sound_until if latest is None else min(sound_until, latest)
            unseen = [each for each in self._sightings if each.is_later_than(sound_until) and each not in blamed]
        else:
            sound_until = turn_began_at
            unseen = [each for each in self._sightings if each.seen_at is None]
        return Verdict(_numbers(blamed), _numbers(unseen), sound_until)


def see(error: BaseException, *, is_raised: bool) -> None:
    """The code learns of the failed calls that an error is about."""
    for sighting in sightings_in(error):
        sighting.see(is_raised=is_raised)


def handled_by_policy(error: BaseException) -> None:
    """A retry policy makes the call again: the code never learns of this attempt."""
    sighting = sighting_of(error)
    if sighting is not None:
        sighting.seen_at = _HANDLED_BY_POLICY


def sighting_of(error: BaseException) -> Sighting | None:
    """The note that was made of an error when a call failed with it."""
    note = vars(error).get(_NOTE) if isinstance(error, TaskFailedError) else None
    return note if isinstance(note, Sighting) else None


def sightings_in(error: BaseException | None, nesting: int = 0) -> list[Sighting]:
    """The failed calls that an error is about: its own, those of the members of a group, else those that led to it."""
    passed: set[int] = set()
    while error is not None and id(error) not in passed:
        passed.add(id(error))
        own = sighting_of(error)
        if own is not None:
            return [own]
        if isinstance(error, BaseExceptionGroup) and nesting < _MAX_NESTING:
            found = [sighting for member in error.exceptions for sighting in sightings_in(member, nesting + 1)]
            if found:
                return found
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return []


def _numbers(sightings: list[Sighting]) -> tuple[int, ...]:
    return tuple(sorted({sighting.task_id for sighting in sightings}))
