"""A lock beside the SQLite file by which other processes of the host see at once that a worker's process has died.

Each worker locks one byte of ``<database>-workers`` at a random offset. The operating system drops the lock with the process, also at kill -9.
It is a sign only; the fence in the database decides. Record locks belong to the process and end when it closes any descriptor of the file, so
there is one descriptor per file and process, kept here, and a process never tests a lock of its own.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows: a death is noticed when the lease runs out
    fcntl = None  # type: ignore[assignment]

SLOTS = 2**40

_guard = threading.Lock()
_files: dict[tuple[int, str], tuple[int, set[int]]] = {}
"""By process and path: the descriptor and the slots that this process holds. The process id keeps a fork from using its parent's."""


class ProcessLock:
    """The locks of this process in one file."""

    def __init__(self, database_path: Path) -> None:
        self._path = str(database_path) + "-workers"

    def hold(self, slot: int) -> bool:
        """Take a slot for as long as this process lives; False where the system has no such locks."""
        if fcntl is None:
            return False
        with _guard:
            descriptor, held = self._file()
            try:
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, slot)
            except OSError:
                return False
            held.add(slot)
            return True

    def release(self, slot: int) -> None:
        """Give a slot back."""
        if fcntl is None:
            return
        with _guard:
            descriptor, held = self._file()
            held.discard(slot)
            fcntl.lockf(descriptor, fcntl.LOCK_UN, 1, slot)

    def is_free(self, slot: int) -> bool:
        """Whether the process that held the slot is gone."""
        if fcntl is None:
            return False
        with _guard:
            descriptor, held = self._file()
            if slot in held:
                return False
            try:
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, slot)
            except OSError:
                return False
            fcntl.lockf(descriptor, fcntl.LOCK_UN, 1, slot)
            return True

    def _file(self) -> tuple[int, set[int]]:
        key = (os.getpid(), self._path)
        if key not in _files:
            _files[key] = (os.open(self._path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600), set())
        return _files[key]
