"""The app of the chaos tests: every effect of an activity is a line in a ledger outside the engine.

A server imports ``chaos_app:app``, which reads CHAOS_FOLDER and CHAOS_CONFIG; the tests call ``make_app``.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from pathlib import Path
from typing import Any

from flask import Flask

from flask_durable import DurableBlueprint, FlaskDurable, current_activity

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
    call = (current_activity.instance_id, current_activity.task_id, token, os.getpid())
    write_line("began", *call)
    time.sleep(seconds)
    write_line("ended", *call)
    return token


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


def make_app(folder: str, **config: Any) -> tuple[Flask, FlaskDurable]:
    app = Flask("chaos", instance_path=folder)
    app.config.update(DURABLE_DATABASE=f"sqlite:///{folder}/durable.db", **config)
    durable = FlaskDurable(app)
    durable.register(functions)
    app.add_url_rule("/", "hello", lambda: f"{os.getpid()}")
    return app, durable


if "CHAOS_FOLDER" in os.environ:
    app, durable = make_app(os.environ["CHAOS_FOLDER"], **json.loads(os.environ.get("CHAOS_CONFIG", "{}")))

if __name__ == "__main__":
    app.run(host="127.0.0.1", port=int(os.environ["CHAOS_PORT"]), debug=os.environ.get("CHAOS_DEBUG") == "1")
