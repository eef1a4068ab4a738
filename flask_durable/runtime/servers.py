"""Which part this process plays under its server, read from what its main thread is doing: servers say it nowhere else.

Supposing wrong costs nothing but time: a process that serves and is not recognised starts its worker a little later, at the latest with its
first request.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any


def is_gunicorn_master() -> bool:
    """Whether gunicorn's arbiter loads the app in this process, in order to fork the workers (``--preload``)."""
    return "gunicorn.arbiter" in sys.modules and _is_inside("gunicorn.arbiter") and not is_gunicorn_worker()


def is_gunicorn_worker() -> bool:
    """Whether this is a worker process of gunicorn."""
    return "gunicorn.arbiter" in sys.modules and any(name.startswith("gunicorn.workers.") for name, _ in _main_frames())


def is_reloader_parent() -> bool:
    """Whether Werkzeug's reloader serves the app in a child of this process; ``app.run(debug=True)`` is not known before it is called."""
    is_child = os.environ.get("WERKZEUG_RUN_MAIN") == "true"
    return not is_child and "werkzeug._reloader" in sys.modules and _is_inside("werkzeug._reloader")


def is_uwsgi_master() -> bool:
    """Whether uWSGI loads the app in this process, in order to fork the workers."""
    uwsgi = _uwsgi()
    return uwsgi is not None and uwsgi.worker_id() == 0


def is_uwsgi_without_threads() -> bool:
    """Whether uWSGI keeps every thread but its own from running."""
    uwsgi = _uwsgi()
    return uwsgi is not None and not uwsgi.has_threads


def on_uwsgi_fork(call: Callable[[], None]) -> None:
    """Have that called in each worker process of uWSGI, which forks without Python's hooks."""
    uwsgi = _uwsgi()
    if uwsgi is None or not is_uwsgi_master():
        return
    before = getattr(uwsgi, "post_fork_hook", None)

    def after_fork() -> None:
        if before is not None:
            before()
        call()

    uwsgi.post_fork_hook = after_fork


def is_loading() -> bool:
    """Whether the app is still being imported or made: what it will register is not known yet."""
    return any(
        name == "importlib._bootstrap"
        or (name == "flask.cli" and function == "load_app")
        or (name == "gunicorn.workers.base" and function == "load_wsgi")
        for name, function in _main_frames()
    )


def _uwsgi() -> Any:
    # uWSGI has the module built in; nobody else has one of that name with this function
    found = sys.modules.get("uwsgi")
    return found if hasattr(found, "worker_id") else None


def _is_inside(module: str) -> bool:
    return any(name == module for name, _ in _main_frames())


def _main_frames() -> Iterator[tuple[str, str]]:
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    while frame is not None:
        yield str(frame.f_globals.get("__name__", "")), frame.f_code.co_name
        frame = frame.f_back
