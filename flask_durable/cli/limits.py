"""Limits of a worker process: when it has done enough and ends in order, so that a supervisor starts a fresh one."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """After what a worker ends; None for never.

    Args:
        calls: activity calls that ended in this process.
        seconds: since it started.
        memory: resident memory of the process, in MiB.
    """

    calls: int | None = None
    seconds: float | None = None
    memory: int | None = None
    _began: float = field(default_factory=time.monotonic)

    def reached(self, calls: int) -> str | None:
        """The limit that is reached, in words.

        Args:
            calls: how many have ended so far.
        """
        if self.calls is not None and calls >= self.calls:
            return f"{calls} activity calls have ended (--max-calls {self.calls})"
        if self.seconds is not None and time.monotonic() - self._began >= self.seconds:
            return f"it has run long enough (--max-seconds {self.seconds:g})"
        if self.memory is not None and (used := _resident_mib()) is not None and used >= self.memory:
            return f"it uses {used} MiB of memory (--max-memory {self.memory})"
        return None


def can_tell_memory() -> bool:
    """Whether this system says how much memory a process uses."""
    return _resident_mib() is not None


def _resident_mib() -> int | None:
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 // _MIB for line in status.splitlines() if line.startswith("VmRSS")), None)
