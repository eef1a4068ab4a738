"""The command line: `flask durable …`. One file per group of commands; none but `worker` starts a worker."""

from __future__ import annotations

from flask_durable.cli.control import purge, raise_event, restart, resume, start, suspend, terminate
from flask_durable.cli.doctor import doctor
from flask_durable.cli.group import DurableGroup
from flask_durable.cli.instances import history, list_instances, status
from flask_durable.cli.schema import db
from flask_durable.cli.worker import worker

__all__ = ["durable"]

durable = DurableGroup(
    "durable",
    help="""Run, watch and control durable orchestrations.

    Results go to standard output, notes to standard error. Exit status: 0 done, 1 failed, 2 wrong usage.
    """,
)
for _command in (worker, start, status, list_instances, history, raise_event, terminate, suspend, resume, restart, purge, db, doctor):
    durable.add_command(_command)
