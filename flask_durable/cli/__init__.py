"""The command line: `flask durable …`. One file per group of commands; none but `worker` starts a worker."""

from __future__ import annotations

from flask_durable.cli.control import purge, raise_event, restart, resume, start, suspend, terminate
from flask_durable.cli.doctor import doctor
from flask_durable.cli.group import DurableGroup
from flask_durable.cli.instances import history, list_instances, status, versions
from flask_durable.cli.keys import create_key
from flask_durable.cli.rewinds import rewind
from flask_durable.cli.schema import db
from flask_durable.cli.worker import worker

__all__ = ["durable"]

durable = DurableGroup(
    "durable",
    help="""Run, watch and control durable orchestrations.

    Results go to standard output, notes to standard error. Exit status: 0 done, 1 failed, 2 wrong usage.
    """,
)
for _command in (
    worker,
    start,
    status,
    list_instances,
    versions,
    history,
    raise_event,
    terminate,
    suspend,
    resume,
    rewind,
    restart,
    purge,
    db,
    doctor,
    create_key,
):
    durable.add_command(_command)
