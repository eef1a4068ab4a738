"""When a process starts its worker: in each process that serves, before any request, and nowhere else.

Nothing starts when the app is made; that arms a timer. A process that forks before the timer is over is a master and disarms it; its child is
a server's worker process and arms its own. A child of a process whose worker already runs is a helper and stays without one. Only comparing
process ids tells the truth after a fork: some servers fork without running Python's hooks.

A worker that begins while the app is still being imported would not know the functions that are yet to come, and fail their calls: the timer
goes on until the import is over.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass

from flask_durable.logs import get_logger
from flask_durable.runtime import servers

logger = get_logger("flask_durable.startup")

ARM_SECONDS = 0.6
AFTER_FORK_SECONDS = 0.2
LOOK_SECONDS = 0.05
LONGEST_LOADING = 60.0


@dataclass(frozen=True, slots=True)
class Role:
    """What a process is for.

    Args:
        serves: whether it is, or may become, one that serves.
        reason: why, for people.
        is_off: the app does not want a worker here, whatever the process is for.
        is_certain: nothing is to be waited for but the end of loading; a process that is not known to serve may yet fork those that do.
    """

    serves: bool
    reason: str
    is_certain: bool = False
    is_off: bool = False


@dataclass(slots=True)
class Process:
    """What this process is, as far as it is known."""

    pid: int
    has_started: bool = False
    is_helper: bool = False
    has_forked: bool = False


class StartUp:
    """Starts one app's worker in the right processes.

    Args:
        start: starts the worker; called at most once per process.
        let_go: called in a process that is about to fork the serving ones: they must inherit no connections.
        forget: called in the child of a fork, before anything else.
        role: what this process is for, as far as it shows now.
    """

    def __init__(self, start: Callable[[], None], let_go: Callable[[], None], forget: Callable[[], None], role: Callable[[], Role]) -> None:
        self._start = start
        self._let_go = let_go
        self._forget = forget
        self._role = role
        self._process = Process(os.getpid())
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None
        self._is_closed = False
        self._loading_until = 0.0
        self.reason = ""
        _all.add(self)

    def arm(self) -> None:
        """Called when the app is made: start soon, unless this process turns out not to serve."""
        role = self._role()
        self.reason = role.reason
        self._loading_until = time.monotonic() + LONGEST_LOADING
        servers.on_uwsgi_fork(self._on_uwsgi_fork)
        if role.serves:
            self._arm(LOOK_SECONDS if role.is_certain else ARM_SECONDS)

    def request(self) -> None:
        """Called at each request and client call: a process that serves is one that works, also where no timer could tell."""
        process = self._process
        if process.pid == os.getpid() and (process.has_started or process.is_helper or self._is_closed):
            return
        if process.pid != os.getpid():
            self.after_fork()
        if not self._process.is_helper and not servers.is_uwsgi_without_threads():
            self._fire()

    def started(self) -> None:
        """The worker was started by hand."""
        self._process = Process(os.getpid(), has_started=True)
        self._disarm()

    def close(self) -> None:
        """Never start again in this process."""
        self._is_closed = True
        self._disarm()

    def before_fork(self) -> None:
        """This process forks: it is a master, unless its worker already runs."""
        if self._process.pid == os.getpid() and not self._process.has_started:
            self._process.has_forked = True
            self._disarm()
            self._let_go()
            self.reason = "this process forks the ones that serve"

    def after_fork(self) -> None:
        """This is the child of a fork."""
        parent = self._process
        if parent.pid == os.getpid():
            return
        self._lock = threading.Lock()
        self._timer = None
        self._process = Process(os.getpid(), is_helper=parent.has_started)
        self._forget()
        role = self._role()
        if role.is_off:
            self.reason = role.reason
        elif parent.has_started:
            self.reason = "a child of a process whose worker runs"
        elif not self._is_closed and (parent.has_forked or role.serves):
            self.reason = "a serving process forked by its server"
            self._arm(AFTER_FORK_SECONDS)

    def _on_uwsgi_fork(self) -> None:
        if self._process.pid == os.getpid():
            self.arm()  # without a master, the process that loaded the app is the first worker
        else:
            self.after_fork()

    def _arm(self, seconds: float) -> None:
        self._timer = threading.Timer(seconds, self._due)
        self._timer.daemon = True
        self._timer.start()

    def _disarm(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _due(self) -> None:
        """The timer is over: start, unless the process is still loading, or has turned out not to serve."""
        if self._process.has_forked or self._is_closed:
            return
        if servers.is_loading() and time.monotonic() < self._loading_until:
            self._arm(LOOK_SECONDS)
        elif servers.is_reloader_parent():
            self.reason = "the reloader's parent does not serve"
        else:
            self._fire()

    def _fire(self) -> None:
        with self._lock:
            if self._process.has_started or self._is_closed:
                return
            self._process.has_started = True
        try:
            self._start()
        except Exception:
            self._process.has_started = False
            logger.exception("The worker could not be started; the next request tries again")


_all: weakref.WeakSet[StartUp] = weakref.WeakSet()


def _before_fork() -> None:
    for startup in list(_all):
        startup.before_fork()


def _after_fork() -> None:
    for startup in list(_all):
        startup.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_child=_after_fork)
