"""The command that runs a worker in the foreground; the only place that handles signals."""

from __future__ import annotations

import os
import queue
import signal
from types import FrameType

import click
from flask import current_app
from flask.cli import with_appcontext

from flask_durable.cli.group import DurableState, app_state, note

_LOOK_SECONDS = 1.0


@click.command("worker")
@with_appcontext
def worker() -> None:
    """Run a worker: work on orchestrations until SIGTERM or Ctrl+C.

    It then takes nothing new, gives running activities DURABLE_SHUTDOWN_GRACE seconds, and hands the rest to other workers. A second signal
    ends the process at once; its work is taken over as after a crash.
    """
    state = app_state()
    # A SimpleQueue, because its put() may be called in a signal handler while get() waits in the same thread
    signals: queue.SimpleQueue[int] = queue.SimpleQueue()

    def on_signal(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if len(received) > 1:
            os._exit(128 + number)
        signals.put(number)

    received: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    state.start_worker()
    note(
        f"Worker started: app {current_app.name!r}, database {state.database_url}, {len(state.registry.orchestrator_names())} orchestrators, "
        f"{len(state.registry.activity_names())} activities, process {os.getpid()}. Ctrl+C or SIGTERM ends it"
    )
    _wait(state, signals)
    is_over = state.stop_worker()
    note("Worker stopped" if is_over else "Worker stopped; what was still running is given to other workers")


def _wait(state: DurableState, signals: queue.SimpleQueue[int]) -> None:
    """Wait for a signal.

    Raises:
        click.ClickException: the worker has ended by itself.
    """
    while True:
        try:
            signals.get(timeout=_LOOK_SECONDS)
            return
        except queue.Empty:
            if not state.is_worker_running:
                raise click.ClickException("The worker has ended by itself; the log says why") from None
