"""Interruption: ending orchestrator code that never yields, and keeping others alive beside it."""

from __future__ import annotations

import ctypes
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import CodeType, FrameType

from flask_durable.core import execution

BRISK = 0.0001
"""Seconds after which a thread that keeps Python's lock has to let others have it, while code runs that does not yield; usually it is 0.005."""

TINY = 0.000001
"""The same while code is pressed: it gets to a few byte codes between two interruptions, so that one comes outside of its ``try`` blocks."""

PRESSES = 100

_EXECUTION = execution.__file__
_CORE = str(Path(_EXECUTION).parent)

_IMPORTS = "<frozen importlib"
"""Code that holds locks which the whole process needs, all the while."""

_LOCKERS = (f"{Path(logging.__file__).parent}{os.sep}", threading.__file__)
_LOCKING = frozenset({"acquire", "release", "_acquireLock", "_releaseLock", "__enter__", "__exit__", "_acquire_restore", "_release_save"})
"""Functions of those modules that take a lock or give it back: cut short there, the lock would be kept for ever.

Beside them both give their locks back by ``try`` and ``with``, so code that does little else than write logs can be cut short in the middle of it.
"""

_giving = threading.Lock()
"""Held while a thread is looked at and interrupted, so that one whose code has ended can wait until no more comes."""


class TurnTimeoutError(BaseException):
    """Raised inside orchestrator code that ran for too long; not an Exception, so that it is not caught by accident."""


class _Pace:
    """How often threads have to let others have Python's lock; the usual interval comes back when nobody needs another one."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._hogs: set[threading.Thread] = set()
        self._presses = 0
        self._usual: float | None = None

    def hog(self, thread: threading.Thread, *, is_one: bool) -> None:
        with self._guard:
            self._hogs = {each for each in self._hogs if each.is_alive() and each is not thread}
            if is_one:
                self._hogs.add(thread)
            self._set()

    def press(self, difference: int) -> None:
        with self._guard:
            self._presses += difference
            self._set()

    def _set(self) -> None:
        if self._usual is None:
            self._usual = sys.getswitchinterval()
        if self._presses or self._hogs:
            sys.setswitchinterval(min(self._usual, TINY if self._presses else BRISK))
        else:
            sys.setswitchinterval(self._usual)
            self._usual = None


_pace = _Pace()


def interrupt(thread: threading.Thread, *, anywhere: bool = False) -> None:
    """Raise TurnTimeoutError in another thread, at its next byte code, if it is in code of an orchestrator that may be cut short.

    Code that waits in C is not reached until it has waited.

    Args:
        thread: the thread to interrupt.
        anywhere: whether our own code may be cut short too.
    """
    with _giving:
        if thread.ident is not None and thread.is_alive() and _may_be_cut_short(thread) and (anywhere or runs_orchestrator_code(thread)):
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(TurnTimeoutError))


def settle() -> None:
    """Called by a thread whose orchestrator code has just ended: no interruption that was meant for the code comes after this.

    Raises:
        TurnTimeoutError: the last one has come just now.
    """
    with _giving:
        pass
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(threading.get_ident()), None)


def press(thread: threading.Thread) -> None:
    """Interrupt orchestrator code many times in a moment.

    Code that catches an interruption inside of a loop gets the next one while it leaves the handler, where most loops catch nothing.
    """
    _pace.press(1)
    try:
        for _ in range(PRESSES):
            if not thread.is_alive():
                return
            interrupt(thread)
            time.sleep(0)
    finally:
        _pace.press(-1)


def _frames(thread: threading.Thread) -> Iterator[FrameType]:
    """What a thread is in now, the innermost first."""
    frame: FrameType | None = sys._current_frames().get(thread.ident or 0)
    while frame is not None:
        yield frame
        frame = frame.f_back


def _may_be_cut_short(thread: threading.Thread) -> bool:
    return not any(_keeps_a_lock(frame.f_code) for frame in _frames(thread))


def _keeps_a_lock(code: CodeType) -> bool:
    return code.co_filename.startswith(_IMPORTS) or (code.co_name in _LOCKING and code.co_filename.startswith(_LOCKERS))


def runs_orchestrator_code(thread: threading.Thread) -> bool:
    """Whether a thread is in code of an orchestrator now, and not in ours that makes the best of how that ended."""
    called: FrameType | None = None
    for frame in _frames(thread):
        if called is not None and frame.f_code.co_filename == _EXECUTION and not called.f_code.co_filename.startswith(_CORE):
            return True
        called = frame
    return False


def interrupt_all(threads: Sequence[threading.Thread], seconds: float) -> bool:
    """Interrupt threads again and again, since code may catch it; returns whether all have ended in that time."""
    deadline = time.monotonic() + seconds
    is_first = True
    while any(thread.is_alive() for thread in threads):
        if time.monotonic() > deadline:
            return False
        for thread in threads:
            if is_first:
                interrupt(thread, anywhere=True)
            else:
                press(thread)
            thread.join(0.05)
        is_first = False
    return True


def hog_found(thread: threading.Thread) -> None:
    """A thread runs code that does not yield: the others get their turns more often."""
    _pace.hog(thread, is_one=True)


def hog_gone(thread: threading.Thread) -> None:
    """It has ended."""
    _pace.hog(thread, is_one=False)
