"""FailureDetails: what is kept of an exception, and the errors that bring it back into an orchestrator."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from flask_durable.errors import DurableError

MAX_MESSAGE = 8_000
MAX_TRACEBACK = 32_000
MAX_CAUSES = 10


@dataclass(frozen=True, slots=True)
class FailureDetails:
    """An exception as data: it crosses processes and restarts.

    Args:
        type_name: fully qualified class name, for example ``builtins.ValueError``.
        message: the exception's text, cut to ``MAX_MESSAGE`` characters.
        traceback: the formatted traceback, cut to ``MAX_TRACEBACK`` characters.
        cause: details of ``__cause__`` (or of ``__context__``, when it is not suppressed).
        is_non_retriable: whether a retry policy must leave it alone.
        bases: qualified names of the class's own base classes, up to Exception.
        data: JSON text of its arguments and attributes, if its class is registered (core/exceptions.py).
    """

    type_name: str
    message: str
    traceback: str = ""
    cause: FailureDetails | None = None
    is_non_retriable: bool = False
    bases: tuple[str, ...] = ()
    data: str | None = None

    @classmethod
    def from_exception(
        cls, error: BaseException, *, is_non_retriable: bool = False, data_of: Callable[[BaseException], str | None] = lambda _error: None
    ) -> FailureDetails:
        """Keep what can be kept of an exception; text is cut, never refused (rule 7).

        Args:
            error: the exception.
            is_non_retriable: whether trying again would not help.
            data_of: gives the data that are kept of an exception.
        """
        return _details(error, is_non_retriable, MAX_CAUSES, data_of)

    def is_type(self, kind: type[BaseException] | str) -> bool:
        """Whether the exception was of that class: given as a class, also of a subclass; given as text, by qualified or short name."""
        if not isinstance(kind, str):
            name = qualified_name(kind)
            if name in self.bases:
                return True
            return self.type_name == name
        return kind in (self.type_name, self.type_name.rpartition(".")[2])

    @property
    def origin(self) -> FailureDetails:
        """The failure itself, where this only says that a call failed and was not caught: that of the innermost such call."""
        details = self
        while details.cause is not None and details.type_name in _CARRIERS:
            details = details.cause
        return details

    def is_caused_by(self, kind: type[BaseException] | str) -> bool:
        """Whether the exception or one in its chain of causes was of that class."""
        details: FailureDetails | None = self
        while details is not None:
            if details.is_type(kind):
                return True
            details = details.cause
        return False

    def to_json(self) -> dict[str, Any]:
        """The form that is shown."""
        return {
            "errorType": self.type_name,
            "errorMessage": self.message,
            "stackTrace": self.traceback,
            "innerFailure": self.cause.to_json() if self.cause else None,
            "isNonRetriable": self.is_non_retriable,
        }

    def to_stored(self) -> dict[str, Any]:
        """The form that is stored: what is shown, and what it takes to raise it again."""
        stored = {**self.to_json(), "innerFailure": self.cause.to_stored() if self.cause else None}
        if self.bases:
            stored["errorBases"] = list(self.bases)
        if self.data is not None:
            stored["errorData"] = self.data
        return stored

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> FailureDetails:
        """Read the stored form."""
        cause = data.get("innerFailure")
        return cls(
            type_name=str(data.get("errorType", "")),
            message=str(data.get("errorMessage", "")),
            traceback=str(data.get("stackTrace") or ""),
            cause=cls.from_json(cause) if isinstance(cause, dict) else None,
            is_non_retriable=bool(data.get("isNonRetriable", False)),
            bases=tuple(data.get("errorBases") or ()),
            data=data.get("errorData"),
        )


class TaskFailedError(DurableError):
    """An activity or a sub-orchestration failed; raised at the yield.

    Args:
        message: the text, for example ``Activity task #1 failed: boom``.
        details: what is known of the original exception.
        task_id: number of the call.
    """

    code = "task_failed"

    def __init__(self, message: str, details: FailureDetails, task_id: int) -> None:
        super().__init__(message)
        self.details = details
        self.task_id = task_id

    def is_type(self, kind: type[BaseException] | str) -> bool:
        """Whether the original exception was of that class (rule 30)."""
        return self.details.is_type(kind) or self.details.origin.is_type(kind)


class SubOrchestrationFailedError(TaskFailedError):
    """A sub-orchestration failed or was terminated; raised at the yield."""

    code = "sub_orchestration_failed"


class NonRetriableError(DurableError):
    """Raise it, or a subclass, in an activity or a sub-orchestration: no retry policy makes a further attempt (rule 26)."""

    code = "non_retriable"


_CARRIERS = frozenset({f"{__name__}.TaskFailedError", f"{__name__}.SubOrchestrationFailedError"})


def is_named(kind: type, name: str) -> bool:
    """Whether a class or one of its bases has that qualified or short name."""
    return any(name in (base.__name__, qualified_name(base)) for base in kind.__mro__)


def qualified_name(kind: type) -> str:
    """Module and qualified name of a class, ``builtins.ValueError``."""
    return f"{kind.__module__}.{kind.__qualname__}"


def _details(error: BaseException, is_non_retriable: bool, levels: int, data_of: Callable[[BaseException], str | None]) -> FailureDetails:
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    inner: FailureDetails | None = None
    if isinstance(error, TaskFailedError):
        inner = _cut(error.details, levels - 1)
    elif cause is not None and levels > 1:
        inner = _details(cause, False, levels - 1, data_of)
    is_carrier = isinstance(error, TaskFailedError)
    return FailureDetails(
        type_name=qualified_name(type(error)),
        message=_clean(_text(error), MAX_MESSAGE),
        traceback=_clean(_trace(error), MAX_TRACEBACK),
        cause=inner,
        is_non_retriable=is_non_retriable or (isinstance(error, NonRetriableError) and not is_carrier),
        bases=() if is_carrier else _bases(type(error)),
        data=None if is_carrier else data_of(error),
    )


def _bases(kind: type) -> tuple[str, ...]:
    return tuple(qualified_name(base) for base in kind.__mro__[1:] if base not in (Exception, BaseException, object))


def _cut(details: FailureDetails | None, levels: int) -> FailureDetails | None:
    """The first levels of a chain: each parent of a failed child adds one."""
    if details is None or levels < 1:
        return None
    inner = _cut(details.cause, levels - 1)
    return details if inner is details.cause else replace(details, cause=inner)


def _trace(error: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(type(error), error, error.__traceback__, chain=False))
    except Exception:  # noqa: BLE001 - for its hints it looks into user objects, which may raise anything
        return ""


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - a broken __str__ must not hide the failure itself
        return f"<{type(error).__name__} whose text could not be made>"


def _clean(text: str, limit: int) -> str:
    text = text.encode("utf-8", "replace").decode("utf-8")
    return text if len(text) <= limit else f"{text[: limit - 20]}… [{len(text)} chars]"
