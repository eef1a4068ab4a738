"""Stores for simulated runs."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import peewee
from chaos.reading import Reader
from invariants import CallRow, HubState, InboxRow, Violation

from flask_durable.storage.sql_store import SqlStore

from .model_store import ModelStore
from .options import SQLITE

_TEMPLATE: list[bytes] = []


def make_store(kind: str, clock: Any) -> Any:
    """An empty store of that kind, with tables."""
    return make_sqlite(clock) if kind == SQLITE else ModelStore(clock)


def make_sqlite(clock: Any) -> SqlStore:
    """The real SQL store on an SQLite file that is gone with its connection; nothing of it is brought to the disk."""
    handle, path = tempfile.mkstemp(suffix=".db")
    with os.fdopen(handle, "wb") as file:
        file.write(_TEMPLATE[0] if _TEMPLATE else b"")
    database = peewee.SqliteDatabase(path, pragmas={"synchronous": "off", "journal_mode": "memory"})
    database.connect()
    store = SqlStore(database, clock=clock, timeout=1.0)
    if not _TEMPLATE:
        store.create_tables()
        _TEMPLATE.append(Path(path).read_bytes())
    store.schema_version()
    Path(path).unlink()
    return store


def state_of(store: Any) -> HubState:
    """All that a store holds."""
    state = HubState()
    if isinstance(store, ModelStore):
        state.instances = dict(store.instances)
        for (instance_id, generation), history in store.histories.items():
            if instance_id in state.instances and state.instances[instance_id].generation == generation:
                state.histories[instance_id] = history
            else:
                state.broken.append(Violation("I6", instance_id, f"generation {generation} is left, which is not there any more"))
        for instance_id, inbox in store.inboxes.items():
            if inbox:
                state.messages[instance_id] = [InboxRow(mail.execution_id, mail.visible_at, mail.event) for mail in inbox]
        state.calls = [CallRow(each.item.instance_id, each.item.execution_id, each.item.task_id, each.worker_id) for each in store.calls.values()]
        state.workers = set(store.registered)
    else:
        Reader("sqlite://")._fill(state, lambda text: store._sql.rows(text.replace("$", "1 = 1")))
    return state


def close(store: Any) -> None:
    """Forget all of it."""
    if not isinstance(store, ModelStore):
        store._sql.database.close()
