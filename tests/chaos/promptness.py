"""Promptness: the two seconds within which work is taken up, on a machine that may be busy with other things."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping

TWO_SECONDS = 2.0


def in_time(took: float, limit: float) -> None:
    """Fail when something took too long, in the words by which a test is known that had too little of its machine."""
    assert took < limit, f"not within {limit:.2f} s, but in {took:.2f}"


def bound(environment: Mapping[str, str], processes: int = 1) -> float:
    """Two seconds, or more while so many processes need most of that to import the app, which is nothing that the package could hasten.

    Args:
        environment: where the app finds what it needs.
        processes: how many start at once.
    """
    began = time.monotonic()
    words = [sys.executable, "-c", "import gunicorn.app.wsgiapp, flask_durable.http, flask_durable.cli, flask_durable.storage.sql_store"]
    started = [subprocess.Popen(words, env={**os.environ, **environment}) for _ in range(processes)]
    assert [process.wait(60) for process in started] == [0] * processes
    return max(TWO_SECONDS, 2.0 * (time.monotonic() - began))
