"""The command that runs a worker in the foreground; the only place that handles signals."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
from types import FrameType

import click
from flask import current_app
from flask.cli import with_appcontext

from flask_durable.cli.group import DurableState, app_state, note
from flask_durable.cli.health import address, serve_health
from flask_durable.cli.limits import Limits, can_tell_memory

_LOOK_SECONDS = 1.0


@click.command("worker")
@click.option("--orchestration", "orchestrations", metavar="NAME", multiple=True, help="Run only this orchestrator; may be repeated.")
@click.option("--activity", "activities", metavar="NAME", multiple=True, help="Run only this activity; may be repeated.")
@click.option("--no-orchestrations", is_flag=True, help="Run activities only.")
@click.option("--no-activities", is_flag=True, help="Run orchestrators only.")
@click.option(
    "--health",
    metavar="[HOST:]PORT",
    callback=address,
    help="Answer GET /live and GET /ready there: 200, or 503 with the reason. This host only unless a host is given.",
)
@click.option("--max-calls", type=click.IntRange(min=1), metavar="N", help="End in order after so many activity calls.")
@click.option("--max-seconds", type=click.FloatRange(min=0, min_open=True), metavar="S", help="End in order after so long.")
@click.option("--max-memory", type=click.IntRange(min=1), metavar="MIB", help="End in order when the process uses so much memory.")
@with_appcontext
def worker(
    orchestrations: tuple[str, ...],
    activities: tuple[str, ...],
    no_orchestrations: bool,
    no_activities: bool,
    health: tuple[str, int] | None,
    max_calls: int | None,
    max_seconds: float | None,
    max_memory: int | None,
) -> None:
    """Run a worker: work on orchestrations until SIGTERM or Ctrl+C.

    It runs everything that the app has registered, or what the options or DURABLE_WORKER_ORCHESTRATIONS and DURABLE_WORKER_ACTIVITIES name; the rest is
    left to other workers.

    It then takes nothing new, gives running activities DURABLE_SHUTDOWN_GRACE seconds, and hands the rest to other workers. A second signal
    ends the process at once; its work is taken over as after a crash.

    With a limit (--max-…) it ends in the same way by itself, with exit status 0; whatever supervises it starts it anew.
    """
    if max_memory is not None and not can_tell_memory():
        raise click.UsageError("--max-memory: this system does not say how much memory a process uses")
    chosen_orchestrations = _chosen("orchestration", orchestrations, no_orchestrations)
    chosen_activities = _chosen("activity", activities, no_activities)
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
    with contextlib.ExitStack() as stack:
        where = None if health is None else stack.enter_context(serve_health(health, state.worker_health))
        state.start_worker(chosen_orchestrations, chosen_activities)
        _announce(state, where)
        _wait(state, signals, Limits(max_calls, max_seconds, max_memory))
        is_over = state.stop_worker()
    note("Worker stopped" if is_over else "Worker stopped; what was still running is given to other workers")


def _announce(state: DurableState, health: str | None) -> None:
    note(
        f"Worker started: app {current_app.name!r}, database {state.database_url}, {len(state.registry.orchestrator_names())} orchestrators, "
        f"{len(state.registry.activity_names())} activities, process {os.getpid()}{f', health at {health}' if health else ''}. Ctrl+C or SIGTERM ends it"
    )


def _chosen(kind: str, names: tuple[str, ...], wants_none: bool) -> tuple[str, ...] | None:
    """The names that the worker is limited to; None for those of the configuration."""
    if wants_none and names:
        raise click.UsageError(f"Give either --{kind} or --no-{'orchestrations' if kind == 'orchestration' else 'activities'}, not both")
    return names if names or wants_none else None


def _wait(state: DurableState, signals: queue.SimpleQueue[int], limits: Limits) -> None:
    """Wait for a signal, or until a limit is reached.

    Raises:
        click.ClickException: the worker has ended by itself.
    """
    while True:
        try:
            number = signals.get(timeout=_LOOK_SECONDS)
            note(f"{signal.Signals(number).name}: the worker ends when its running activities have ended; another signal ends it at once")
            return
        except queue.Empty:
            if not state.is_worker_running:
                raise click.ClickException("The worker has ended by itself; the log says why") from None
        reached = limits.reached(state.ended_calls)
        if reached is not None:
            note(f"The worker ends: {reached}")
            return
