"""ExceptionTypes: the exception classes that an app has registered, so that an orchestrator can catch them by class (rule 30).

A failure travels as data. Where it is raised at a yield, the registered class that its data name is found in this table, never by import, and
an instance of both that class and TaskFailedError is made, without calling any code of the class.
"""

from __future__ import annotations

import functools
import json
import types
import typing
from typing import Any, TypeVar

from flask_durable.core import codec
from flask_durable.core.failure import FailureDetails, TaskFailedError, qualified_name
from flask_durable.core.typed import ValueType, value_type
from flask_durable.errors import InvalidArgumentError
from flask_durable.logs import get_logger

logger = get_logger("flask_durable.core")

MAX_DATA_BYTES = 16_000
"""Arguments and attributes of one exception beyond this are left out."""

SomeException = TypeVar("SomeException", bound=type[Exception])

_OWN_ATTRIBUTES = frozenset({"details", "task_id"})
_STOPS = (StopIteration, StopAsyncIteration)


class ExceptionTypes:
    """The exception classes of one registry, by qualified name."""

    def __init__(self) -> None:
        self._kinds: dict[str, type[Exception]] = {}

    def add(self, kind: SomeException) -> SomeException:
        """Register an exception class and return it.

        Raises:
            InvalidArgumentError: it is no class of exceptions that code may catch, or another class has its name.
        """
        given: object = kind
        if not (isinstance(given, type) and issubclass(given, Exception)) or issubclass(given, _STOPS):
            raise InvalidArgumentError(f"Register a class derived from Exception, other than StopIteration, not {kind!r}")
        name = qualified_name(kind)
        if self._kinds.setdefault(name, kind) is not kind:
            raise InvalidArgumentError(f"Another exception class named {name!r} is already registered")
        return kind

    def include(self, other: ExceptionTypes) -> None:
        """Add all that another one holds."""
        for kind in other._kinds.values():
            self.add(kind)

    def data_of(self, error: BaseException) -> str | None:
        """Arguments and attributes of an exception of a registered class as JSON text; what cannot be written, or is too large, is left out."""
        if not any(qualified_name(kind) in self._kinds for kind in type(error).__mro__):
            return None
        kept: dict[str, Any] = {}
        left = _keep(kept, "args", list(error.args), MAX_DATA_BYTES)
        attributes = kept["attributes"] = {}
        for name, value in vars(error).items():
            if name not in _OWN_ATTRIBUTES and (not name.startswith("__") or name == "__notes__"):
                left = _keep(attributes, name, value, left)
        return json.dumps(kept, ensure_ascii=False, separators=(",", ":"))

    def error(self, base: type[TaskFailedError], message: str, details: FailureDetails, task_id: int) -> TaskFailedError:
        """The error to raise at the yield: also of the registered class that the failure had, if there is one.

        The failure of a child that did not catch the failure of a call of its own counts as that one.
        """
        origin = details.origin
        kind: Any = next((self._kinds[name] for name in (origin.type_name, *origin.bases) if name in self._kinds), None)
        if kind is not None and not issubclass(base, kind):
            one: Any = base
            both = _both(one, kind)
            if both is not None:
                try:
                    return _instance(both, kind, message, details, task_id)
                except Exception as error:  # noqa: BLE001 - classes of C code may insist on arguments that did not travel
                    logger.debug("An exception of class %s cannot be made: %s", qualified_name(kind), error)
        return base(message, details, task_id)


def _keep(kept: dict[str, Any], name: str, value: Any, left: int) -> int:
    try:
        text = codec.encode(value, what=name, max_bytes=left)
    except Exception:  # noqa: BLE001 - attributes may be anything, and reading them may do anything
        return left
    kept[name] = codec.decode(text)
    return left - len(name) - len(text or "")


@functools.lru_cache(maxsize=1024)
def _both(base: type[TaskFailedError], kind: type[Exception]) -> type[TaskFailedError] | None:
    """A class that is caught as either; it goes by the name of the first, as failures are stored under that. None when Python allows no such class."""
    members = {
        "__module__": base.__module__,
        "__qualname__": base.__qualname__,
        "__doc__": kind.__doc__,
        "__str__": lambda self: self.__dict__["_message"],
        "__repr__": lambda self: f"{kind.__name__}({', '.join(map(repr, self.args))})",
        "details": property(lambda self: self.__dict__["details"]),
        "task_id": property(lambda self: self.__dict__["task_id"]),
        "is_type": base.is_type,
    }
    try:
        return types.new_class(base.__name__, (kind, base), exec_body=lambda namespace: namespace.update(members))
    except Exception as error:  # noqa: BLE001 - conflicts of layouts and metaclasses, and hooks of the class
        logger.warning("%s cannot be caught by class in orchestrators, but as TaskFailedError: %s", qualified_name(kind), error)
        return None


def _instance(both: type[TaskFailedError], kind: Any, message: str, details: FailureDetails, task_id: int) -> TaskFailedError:
    origin = details.origin
    data = json.loads(origin.data) if origin.data else {}
    arguments = tuple(data.get("args") or (() if "args" in data else (origin.message,)))
    native: Any = next(each for each in kind.__mro__ if each.__module__ == "builtins")
    error: TaskFailedError = native.__new__(both, *arguments)
    native.__init__(error, *arguments)
    error.args = arguments
    declared = _declared(kind)
    for name, value in data.get("attributes", {}).items():
        declared_type = declared.get(name)
        vars(error)[name] = value if declared_type is None else declared_type.decode(json.dumps(value), what=f"attribute {name} of {kind.__name__}")
    vars(error).update(details=details, task_id=task_id, _message=message)
    return error


@functools.lru_cache(maxsize=1024)
def _declared(kind: type[Exception]) -> dict[str, ValueType]:
    """Types of the attributes that the class annotates."""
    try:
        hints = typing.get_type_hints(kind, include_extras=True)
    except Exception:  # noqa: BLE001 - it evaluates annotations, which may be anything
        return {}
    return {name: value_type(hint, what=f"The attribute {name} of {kind.__name__}") for name, hint in hints.items()}
