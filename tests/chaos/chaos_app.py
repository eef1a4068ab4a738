"""The app of the chaos tests: every effect of an activity is a line in a ledger outside the engine.

A server imports ``chaos_app:app``, which reads CHAOS_FOLDER, CHAOS_DATABASE and CHAOS_CONFIG; the tests call ``make_app``.
"""

from __future__ import annotations

import json
import os
import random
import time
import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any

from flask import Flask

from flask_durable import DurableBlueprint, FlaskDurable, RetryPolicy, current_activity
from flask_durable.errors import WorkerLostError

functions = DurableBlueprint()


def write_line(*words: object) -> None:
    """Append a line in one system call: whole or not at all, whoever else writes."""
    ledger = os.open(Path(os.environ["CHAOS_FOLDER"]) / "ledger", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(ledger, (" ".join(map(str, (*words, time.monotonic()))) + "\n").encode())
    finally:
        os.close(ledger)


@functions.activity
def work(seconds):
    token = uuid.uuid4().hex
    execution_id = current_activity.idempotency_key.removeprefix(f"{current_activity.instance_id}:").rpartition(":")[0]
    call = (current_activity.instance_id, execution_id, current_activity.task_id, token, os.getpid())
    write_line("began", *call)
    time.sleep(seconds)
    write_line("ended", *call)
    return token


@functions.activity
def flaky(seconds):
    if current_activity.attempt == 1:
        raise ValueError("the first attempt fails")
    return work(seconds)


@functions.orchestrator(name="Chain")
def chain(ctx, order):
    tokens = []
    for _ in range(order["steps"]):
        tokens.append((yield ctx.call_activity(work, order["seconds"])))
    return tokens


@functions.orchestrator(name="Fan")
def fan(ctx, order):
    return (yield ctx.when_all([ctx.call_activity(work, order["seconds"]) for _ in range(order["steps"])]))


@functions.orchestrator(name="Await")
def await_event(ctx, _):
    return (yield ctx.wait_for_external_event("Go"))


@functions.orchestrator(name="Mixed")
def mixed(ctx, order):
    """Whatever the steps say; see ``random_steps``."""
    tokens, events, steps = list(order.get("tokens", ())), list(order.get("events", ())), list(order["steps"])
    while steps:
        kind, *rest = steps.pop(0)
        if kind == "work":
            tokens.append((yield ctx.call_activity(work, rest[0])))
        elif kind == "fan":
            tokens += yield ctx.when_all([ctx.call_activity(work, rest[1]) for _ in range(rest[0])])
        elif kind == "retry":
            tokens.append((yield ctx.call_activity(flaky, rest[0], retry_policy=RetryPolicy(timedelta(milliseconds=20), 3))))
        elif kind == "timer":
            yield ctx.create_timer(timedelta(seconds=rest[0]))
        elif kind == "event":
            events.append((yield ctx.wait_for_external_event("Go")))
        elif kind == "child":
            inner = yield ctx.call_sub_orchestrator("Mixed", {"steps": rest[0]})
            tokens += inner["tokens"]
        elif kind == "race":
            timer = ctx.create_timer(timedelta(hours=1))
            task = ctx.call_activity(work, rest[0])
            winner = yield ctx.when_any([task, timer])
            assert winner is task
            timer.cancel()
            tokens.append(task.result)
        elif kind == "again":
            ctx.continue_as_new({"steps": steps, "tokens": tokens, "events": events})
            return None
    return {"tokens": tokens, "events": events}


def random_steps(lots: random.Random, seconds: float, depth: int = 0) -> list[list[Any]]:
    """A program of up to eight steps."""
    kinds = ["work", "work", "fan", "timer", "event", "retry", "race", "again"] + (["child"] * 2 if depth < 2 else [])
    steps: list[list[Any]] = []
    for kind in (lots.choice(kinds) for _ in range(lots.randint(2, 8 if depth == 0 else 3))):
        if kind == "fan":
            steps.append([kind, lots.randint(1, 5), seconds])
        elif kind == "child":
            steps.append([kind, random_steps(lots, seconds, depth + 1)])
        elif kind == "event" and depth:
            steps.append(["timer", 0.01])
        else:
            steps.append([kind, seconds])
    return steps


def effects_of(name: str, order: Any) -> int:
    """How many effects an instance has to have, its children's too."""
    if name in ("Chain", "Fan"):
        return int(order["steps"])
    return _effects(order["steps"]) if name == "Mixed" else 0


def _effects(steps: list[list[Any]]) -> int:
    one = {"work": 1, "retry": 1, "race": 1}
    return sum(step[1] if step[0] == "fan" else _effects(step[1]) if step[0] == "child" else one.get(step[0], 0) for step in steps)


def events_of(order: Any) -> int:
    """How many events a Mixed instance waits for, one after the other."""
    return sum(step[0] == "event" for step in order["steps"])


def tokens_in(name: str, output: Any) -> list[str]:
    """The effects that the output of an instance tells of."""
    return list(output) if name in ("Chain", "Fan") else list(output["tokens"]) if name == "Mixed" else []


def watch_commits(durable: FlaskDurable) -> None:
    """Note every commit of a worker, and every worker that is taken for dead: what I7 is about."""
    store = durable._state().store
    commit, reap = store.commit, store.reap_workers

    def noting(batch: Any) -> Any:
        began, outcome = time.monotonic(), "unknown"
        try:
            committed = commit(batch)
            outcome = "landed"
            return committed
        except WorkerLostError:
            outcome = "refused"
            raise
        finally:
            if batch.worker_id is not None:
                write_line("commit", batch.worker_id, began, outcome)

    def reaping(*arguments: Any) -> Any:
        reaped = reap(*arguments)
        for worker_id in reaped:
            write_line("reaped", worker_id)
        return reaped

    store.commit, store.reap_workers = noting, reaping  # type: ignore[method-assign]


def make_app(folder: str, url: str | None = None, **config: Any) -> tuple[Flask, FlaskDurable]:
    app = Flask("chaos_app", instance_path=folder)
    app.config.update(DURABLE_DATABASE=url or f"sqlite:///{folder}/durable.db", **config)
    durable = FlaskDurable(app)
    durable.register(functions)
    app.add_url_rule("/", "hello", lambda: f"{os.getpid()}")
    return app, durable


if "CHAOS_FOLDER" in os.environ:
    app, durable = make_app(os.environ["CHAOS_FOLDER"], os.environ.get("CHAOS_DATABASE"), **json.loads(os.environ.get("CHAOS_CONFIG", "{}")))
    if "CHAOS_WATCH" in os.environ:
        watch_commits(durable)

if __name__ == "__main__":
    app.run(host="127.0.0.1", port=int(os.environ["CHAOS_PORT"]), debug=os.environ.get("CHAOS_DEBUG") == "1")
