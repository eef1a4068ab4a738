"""What travels through the engine's loop: commands with the threads that wait for them, ended activities, and the step they are part of."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from flask_durable.core.events import HistoryEvent
from flask_durable.core.execution import Execution
from flask_durable.errors import OutcomeUnknownError, StoreUnavailableError
from flask_durable.runtime.turns import Held, RanTurn
from flask_durable.storage.interface import ActivityResult, ActivityWorkItem, Command, Outcome, PurgeBy, RaiseEvent, StartInstance, TurnCommit

HAND_OVER_SECONDS = 0.0005
"""Longest time until a thread that was answered has woken up; nearly always it takes a tenth of that."""


class Submission:
    """A command on its way through the loop, and the thread that waits for it."""

    __slots__ = ("_done", "_goes_on", "_is_awaited", "command", "is_taken", "is_withdrawn", "outcome")

    def __init__(self, command: Command) -> None:
        self.command = command
        self.outcome: Outcome = None
        self.is_withdrawn = False
        self.is_taken = False
        self._done = threading.Lock()
        self._done.acquire()
        self._goes_on = threading.Lock()
        self._goes_on.acquire()
        self._is_awaited = False

    def take(self) -> bool:
        """The loop carries it out, unless it was withdrawn."""
        self.is_taken = True
        return not self.is_withdrawn

    def withdraw(self) -> StoreUnavailableError:
        """Wait no longer; what to tell the caller."""
        self.is_withdrawn = True
        if self.is_taken:
            return OutcomeUnknownError(message="The worker has not answered in time; look whether it was carried out")
        return StoreUnavailableError("The worker did not get to this command in time")

    def answer(self, outcome: Outcome) -> None:
        """Let the waiting thread go on."""
        self.outcome = outcome
        self._done.release()

    def wait(self, seconds: float) -> bool:
        """Wait for the answer."""
        self._is_awaited = True
        is_answered = self._done.acquire(timeout=seconds)
        self._goes_on.release()
        return is_answered

    def goes_on(self, seconds: float) -> bool:
        """Whether the thread that was answered has woken up, or does so within that time."""
        return not self._is_awaited or self._goes_on.acquire(timeout=max(0.0, seconds))


def let_go_on(submissions: Iterable[Submission], monotonic: Callable[[], float]) -> None:
    """Let the threads that were answered run before the loop does.

    Only one thread of Python runs at a time. The loop would take the next commit on its way first, and a caller that starts one instance after the
    other would find it gone each time; so it is with the loop again as soon as the callers have done what they do, and waits for nobody.
    """
    until = monotonic() + HAND_OVER_SECONDS
    for submission in submissions:
        if not submission.goes_on(until - monotonic()):
            return


def controlled_by(command: Command) -> str | None:
    """The instance whose turn has to wait, because the command changes its row."""
    return None if isinstance(command, StartInstance | RaiseEvent | PurgeBy) else command.instance_id


@dataclass(slots=True)
class ActivityDone:
    """An activity ran here; without an event it was not begun, and belongs to another worker or to the queue, or its outcome is recorded already."""

    item: ActivityWorkItem
    event: HistoryEvent | None
    seconds: float
    is_recorded: bool = False


@dataclass(slots=True)
class LateTurn:
    """A turn that took so long that the loop went on without it."""

    ran: RanTurn


@dataclass(slots=True)
class Overdue:
    """A turn has had all the time there is."""

    held: Held


@dataclass(slots=True)
class Step:
    """One round of the loop; it is an object so that another thread can take it over in the middle.

    ``fresh`` names instances whose start and first turn are both part of this step.
    """

    submissions: list[Submission] = field(default_factory=list)
    internal: list[Command] = field(default_factory=list)
    foreign: list[ActivityResult] = field(default_factory=list)
    todo: deque[Held] = field(default_factory=deque)
    turns: list[tuple[Held, Execution, TurnCommit]] = field(default_factory=list)
    fresh: set[str] = field(default_factory=set)

    @property
    def has_work(self) -> bool:
        """Whether there is anything to advance or to write."""
        return bool(self.submissions or self.internal or self.foreign or self.todo or self.turns)

    def answer(self, outcomes: Sequence[Outcome]) -> None:
        """Answer the submissions; their commands are the first of the batch."""
        for submission, outcome in zip(self.submissions, outcomes, strict=False):
            submission.answer(outcome)

    def parts(self) -> list[Step]:
        """What there is to write, one by one."""
        return [
            *(Step(turns=[turn]) for turn in self.turns),
            *(Step(submissions=[submission]) for submission in self.submissions),
            *(Step(internal=[command]) for command in self.internal),
            *(Step(foreign=[result]) for result in self.foreign),
        ]
