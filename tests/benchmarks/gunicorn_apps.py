"""One web app on DBOS Transact or on this package, for dbos_under_gunicorn.py: gunicorn imports ``gunicorn_apps:app``.

COMPARE_PEER says which; every step appends a line to the ledger when it begins and when it ends, with the process it runs in.
"""

from __future__ import annotations

import os
import time
import uuid

from flask import Flask, request

FOLDER = os.environ["COMPARE_FOLDER"]
DATABASE = os.environ["COMPARE_DATABASE"]


def write_line(*words):
    """Append a line in one system call: whole or not at all, whoever else writes."""
    ledger = os.open(os.path.join(FOLDER, "ledger"), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(ledger, (" ".join(map(str, words)) + "\n").encode())
    finally:
        os.close(ledger)


def do_step(order, number, seconds):
    write_line("began", order, number, os.getpid())
    time.sleep(seconds)
    write_line("ended", order, number, os.getpid())


def make_dbos_app():
    from dbos import DBOS, SetWorkflowID

    @DBOS.step()
    def step(order, number, seconds):
        do_step(order, number, seconds)

    @DBOS.workflow()
    def process(order, steps, seconds):
        for number in range(steps):
            step(order, number, seconds)

    config = {"name": "compare", "system_database_url": DATABASE, "application_version": "1", "log_level": "WARNING"}
    if os.environ.get("COMPARE_OWN_EXECUTORS"):
        config["executor_id"] = uuid.uuid4().hex
    DBOS(config=config)
    DBOS.launch()

    def start(order, steps, seconds):
        with SetWorkflowID(order):
            DBOS.start_workflow(process, order, steps, seconds)

    return make_app(start)


def make_durable_app():
    from flask_durable import FlaskDurable

    app = make_app(lambda *order: durable.client.start("process", list(order), instance_id=order[0]))
    app.config.update(DURABLE_DATABASE=DATABASE, DURABLE_TASK_HUB=os.environ["COMPARE_HUB"])
    durable = FlaskDurable(app)

    @durable.activity
    def step(call):
        do_step(*call)

    @durable.orchestrator
    def process(ctx, order):
        name, steps, seconds = order
        for number in range(steps):
            yield ctx.call_activity(step, [name, number, seconds])

    return app


def make_app(start):
    app = Flask("compare", instance_path=FOLDER)

    @app.get("/")
    def pid():
        return str(os.getpid())

    @app.post("/orders/<order>")
    def accept(order):
        start(order, int(request.args["steps"]), float(request.args["seconds"]))
        return str(os.getpid()), 202

    return app


app = {"dbos": make_dbos_app, "flask-durable": make_durable_app}[os.environ["COMPARE_PEER"]]()
