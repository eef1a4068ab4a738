"""How the workers of a test run: one in this process, one that is replaced again and again, or three in processes of their own.

``FLASK_DURABLE_TEST_WORKERS`` chooses: ``one``, ``replaced`` or ``processes``. Tests call ``start_worker`` and ``stop_worker`` in any case.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import select
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from flask_durable import FlaskDurable

MODE = os.environ.get("FLASK_DURABLE_TEST_WORKERS", "one")
REPLACE_SECONDS = float(os.environ.get("FLASK_DURABLE_TEST_REPLACE_SECONDS", "0.4"))
PROCESSES = 3
WORKERS = PROCESSES if MODE == "processes" else 1
"""How many workers run at the same time after one ``start_worker``."""

STOP_SECONDS = 60

_start, _stop, _close = FlaskDurable.start_worker, FlaskDurable.stop_worker, FlaskDurable.close


class Replacer:
    """Stops the worker of an app every 0.4 s (or as FLASK_DURABLE_TEST_REPLACE_SECONDS says) and starts a new one.

    One that its activity keeps busy takes longer to stop; the next one does not wait for it, as in a deploy.
    """

    def __init__(self, durable: FlaskDurable, options: dict[str, Any]) -> None:
        self._durable = durable
        self._options = options
        self._state = durable._state()
        self._is_over = threading.Event()
        self._stopping: list[threading.Thread] = []
        self.replaced = 0
        _start(durable, **options)
        self._thread = threading.Thread(target=self._replace, name="replacer", daemon=True)
        self._thread.start()

    def _replace(self) -> None:
        while not self._is_over.wait(REPLACE_SECONDS):
            if not self._has_claimed():
                continue
            old, self._state._worker = self._state._worker, None
            if old is not None:
                thread = threading.Thread(target=old.stop, args=(None,), name="stopping", daemon=True)
                thread.start()
                self._stopping.append(thread)
                thread.join(REPLACE_SECONDS / 2)
            _start(self._durable, **self._options)
            self.replaced += 1

    def _has_claimed(self) -> bool:
        """Whether the present worker has come to its first claim; on a busy machine none of them ever would, and nothing would go on."""
        worker = self._state._worker
        return worker is None or worker.engine.commit_count > 0

    def stop(self) -> None:
        self._is_over.set()
        self._thread.join()
        _stop(self._durable)
        for thread in self._stopping:
            thread.join()


class Processes:
    """Three workers in three processes; each is a fork of the test's process, with its functions, and has a worker of its own."""

    def __init__(self, durable: FlaskDurable, options: dict[str, Any]) -> None:
        self._durable = durable
        self._options = options
        self._children = [self._fork() for _ in range(PROCESSES)]

    def _fork(self) -> tuple[int, int]:
        reading, writing = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # the test's process has threads; none of them holds a lock of ours
            pid = os.fork()
        if pid == 0:
            self._work(reading)
        os.close(reading)
        return pid, writing

    def _work(self, reading: int) -> None:
        code = 1
        faulthandler.register(signal.SIGUSR1, file=sys.__stderr__, all_threads=True)
        try:
            parent = os.getppid()
            _start(self._durable, **self._options)
            while not select.select([reading], [], [], 1.0)[0] and os.getppid() == parent:
                pass
            _stop(self._durable)
            code = 0
        except BaseException:  # noqa: BLE001 - whatever it is, the parent sees the exit code
            traceback.print_exc()
        finally:
            os._exit(code)

    def stop(self) -> None:
        for _, writing in self._children:
            with contextlib.suppress(BrokenPipeError):
                os.write(writing, b"s")
            os.close(writing)
        codes = [_wait_for(pid) for pid, _ in self._children]
        assert codes == [0] * PROCESSES, f"worker processes ended with {codes}"


def _wait_for(pid: int) -> int:
    deadline = time.monotonic() + STOP_SECONDS
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGUSR1)  # it shows where its threads are
            time.sleep(0.5)
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.002)


MODES: dict[str, Callable[[FlaskDurable, dict[str, Any]], Replacer | Processes]] = {"replaced": Replacer, "processes": Processes}


@contextlib.contextmanager
def workers_as_chosen(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make ``start_worker`` and ``stop_worker`` mean the workers of the chosen mode."""
    if MODE == "one":
        yield
        return
    running: dict[int, Replacer | Processes] = {}

    def start(durable: FlaskDurable, **options: Any) -> None:
        if id(durable) not in running:
            running[id(durable)] = MODES[MODE](durable, options)

    def stop(durable: FlaskDurable) -> None:
        workers = running.pop(id(durable), None)
        if workers is not None:
            workers.stop()

    def close(durable: FlaskDurable) -> None:
        stop(durable)
        _close(durable)

    monkeypatch.setattr(FlaskDurable, "start_worker", start)
    monkeypatch.setattr(FlaskDurable, "stop_worker", stop)
    monkeypatch.setattr(FlaskDurable, "close", close)
    yield
    for workers in list(running.values()):
        workers.stop()
