"""Watchers: threads of this process that wait for an instance, and how they are woken; a hint only, the database decides."""

from __future__ import annotations

import threading
from collections.abc import Iterable


class Watchers:
    """Who waits for which instance.

    ``sees_all`` says whether this process has the only worker, so that it learns of every turn.
    """

    def __init__(self) -> None:
        self.sees_all = False
        self._lock = threading.Lock()
        self._waiting: dict[str, list[threading.Event]] = {}

    def forget(self) -> None:
        """This is the child of a fork: those who waited stayed behind, and so did the one who may have held the lock."""
        self._lock = threading.Lock()
        self._waiting = {}
        self.sees_all = False

    def add(self, instance_id: str) -> threading.Event:
        """Register a wait; the event is set whenever the instance changes its status here."""
        woken = threading.Event()
        with self._lock:
            self._waiting.setdefault(instance_id, []).append(woken)
        return woken

    def remove(self, instance_id: str, woken: threading.Event) -> None:
        """End a wait."""
        with self._lock:
            waiting = self._waiting.get(instance_id, [])
            if woken in waiting:
                waiting.remove(woken)
            if not waiting:
                self._waiting.pop(instance_id, None)

    def notify(self, instance_ids: Iterable[str]) -> None:
        """Wake all who wait for one of these."""
        if not self._waiting:
            return
        with self._lock:
            for instance_id in instance_ids:
                for woken in self._waiting.get(instance_id, ()):
                    woken.set()
