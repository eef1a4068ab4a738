"""Databases for one test each, on every backend that there is."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

from reading import Reader

SERVERS = {"postgres": "FLASK_DURABLE_TEST_POSTGRES", "mysql": "FLASK_DURABLE_TEST_MYSQL"}
BACKENDS = ["sqlite", *(name for name, variable in SERVERS.items() if os.environ.get(variable))]


@contextlib.contextmanager
def make_database(backend: str, folder: Path) -> Iterator[str]:
    """URL of an empty database; on a server one is made, and deleted afterwards."""
    if backend == "sqlite":
        yield f"sqlite:///{folder}/durable.db"
        return
    server = Reader(os.environ[SERVERS[backend]])
    name = f"chaos_{uuid.uuid4().hex[:12]}"
    server.change(f"CREATE DATABASE {name}")
    try:
        yield f"{server.url.rpartition('/')[0]}/{name}"
    finally:
        server.change(f"DROP DATABASE {name}" + (" WITH (FORCE)" if backend == "postgres" else ""))
        server.close()
