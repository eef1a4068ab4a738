"""Where orchestrator code stands in its source, for messages that its author reads."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Generator
from typing import Any

from flask_durable.core.tasks import Task


def position(function: Callable[..., Any], code: Generator[Any, Any, Any] | Coroutine[Any, Any, Any] | None) -> str | None:
    """File, line and function in which suspended code waits; where the orchestrator begins when its code has ended.

    Args:
        function: the orchestrator.
        code: what it made, if that is still there.
    """
    innermost: Any = code
    while (inner := _delegate(innermost)) is not None:
        innermost = inner
    frame = innermost.gi_frame if inspect.isgenerator(innermost) else innermost.cr_frame if inspect.iscoroutine(innermost) else None
    if frame is not None:
        return f"The code is at {frame.f_code.co_filename}:{frame.f_lineno}, in {frame.f_code.co_name}"
    plain = getattr(inspect.unwrap(function), "__code__", None)
    return None if plain is None else f"The orchestrator is at {plain.co_filename}:{plain.co_firstlineno}, {plain.co_name}"


def _delegate(code: object) -> object | None:
    """What the code waits for with ``yield from`` or ``await``, when that is code of the author too."""
    inner = code.gi_yieldfrom if inspect.isgenerator(code) else code.cr_await if inspect.iscoroutine(code) else None
    is_own = inspect.isgenerator(inner) and inner.gi_code is Task.__await__.__code__
    return inner if (inspect.isgenerator(inner) or inspect.iscoroutine(inner)) and not is_own else None
