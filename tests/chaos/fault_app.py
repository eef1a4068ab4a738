"""The chaos app with functions that do what nobody should: the servers of fault scenarios import ``fault_app:app``."""

from __future__ import annotations

import ctypes
import itertools
import os
import resource
import threading
import time
from pathlib import Path

import chaos_app
from chaos_app import write_line

from flask_durable import DurableBlueprint, current_activity

faults = DurableBlueprint()


@faults.activity
def leave(_):
    write_line("poison", current_activity.instance_id, os.getpid())
    os._exit(66)


@faults.activity
def crash(_):
    write_line("poison", current_activity.instance_id, os.getpid())
    ctypes.string_at(0)


@faults.activity
def hang(_):
    write_line("poison", current_activity.instance_id, os.getpid())
    threading.Event().wait()


@faults.activity
def use_database(seconds):
    """An activity that reads through the client and starts another instance, as activities of an app do."""
    client = chaos_app.durable.client
    assert client.get_status(current_activity.instance_id) is not None
    return client.start("Chain", {"steps": 1, "seconds": seconds})


@faults.activity
def hoard(seconds):
    """Take every descriptor that there is, for so long."""
    held = []
    try:
        while True:
            held.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        write_line("hoard", len(held))
        threading.Event().wait(seconds)
    finally:
        for each in held:
            os.close(each)


@faults.activity
def gorge(size):
    """Ask for more memory than there is."""
    try:
        return len(bytes(size))
    except MemoryError:
        return "no memory"


@faults.orchestrator(name="Scarce")
def scarce(ctx, order):
    return (yield ctx.call_activity(order[0], order[1]))


@faults.orchestrator(name="Poison")
def poison(ctx, kind):
    return (yield ctx.call_activity(kind))


@faults.orchestrator(name="PoisonTurn")
def poison_turn(ctx, _):
    write_line("poison", ctx.instance_id, os.getpid())
    os._exit(67)
    yield


@faults.orchestrator(name="UseDatabase")
def use_the_database(ctx, order):
    return (yield ctx.when_all([ctx.call_activity(use_database, order["seconds"]) for _ in range(order["steps"])]))


def block_heartbeats(durable, seconds):
    """After the first heartbeat, the thread of the next one hangs for so long, before it asks the database."""
    store = durable._state().store
    renew, count = store.renew_worker, itertools.count()

    def hanging(*arguments):
        if next(count) == 1:
            threading.Event().wait(seconds)
        return renew(*arguments)

    store.renew_worker = hanging


def keep_ledger():
    """Write to a ledger that is open from the beginning: there may be no descriptor for it later."""
    ledger = os.open(Path(os.environ["CHAOS_FOLDER"]) / "ledger", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    return lambda *words: os.write(ledger, (" ".join(map(str, (*words, time.monotonic()))) + "\n").encode())


if "CHAOS_FOLDER" in os.environ:
    if "CHAOS_KEEP_LEDGER" in os.environ:
        write_line = chaos_app.write_line = keep_ledger()
        resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))
    app, durable = chaos_app.app, chaos_app.durable
    durable.register(faults)
    if "CHAOS_BLOCKED_HEARTBEAT" in os.environ:
        block_heartbeats(durable, float(os.environ["CHAOS_BLOCKED_HEARTBEAT"]))
