"""Interruption: ending orchestrator code that never yields, in the thread that it keeps busy."""

from __future__ import annotations

import ctypes


class TurnTimeoutError(BaseException):
    """Raised inside orchestrator code that ran for too long; not an Exception, so that it is not caught by accident."""


def interrupt(thread_id: int) -> None:
    """Raise TurnTimeoutError in another thread, at its next byte code; code that waits in C is not reached."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread_id), ctypes.py_object(TurnTimeoutError))
