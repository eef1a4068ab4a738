"""The health endpoint of a worker process: one small HTTP server that answers those who watch over it, and no one else's questions."""

from __future__ import annotations

import contextlib
import http.server
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import click

from flask_durable.runtime.health import Health

_REQUEST_SECONDS = 5.0
"""So long a connection may take to say what it wants."""


def address(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, int] | None:
    """Take ``PORT`` (of this host only) or ``HOST:PORT`` apart.

    Raises:
        click.BadParameter: it is neither.
    """
    if value is None:
        return None
    host, _, port = value.rpartition(":")
    if not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise click.BadParameter(f"{value!r} is not a port (0 to 65535) or host:port", ctx, param)
    return host.strip("[]") or "127.0.0.1", int(port)


@contextlib.contextmanager
def serve_health(at: tuple[str, int], health: Callable[[], Health]) -> Iterator[str]:
    """Answer ``GET /live`` and ``GET /ready`` for as long as the context lasts; gives the address that is listened at.

    Args:
        at: host and port; port 0 takes a free one.
        health: says how the worker is now.

    Raises:
        click.ClickException: the address cannot be listened at.
    """
    handler = type("Handler", (_Handler,), {"health": staticmethod(health)})
    try:
        server = http.server.ThreadingHTTPServer(at, handler)
    except OSError as error:
        raise click.ClickException(f"The health endpoint cannot listen at {at[0]}:{at[1]}: {error.strerror or error}") from error
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.2}, name="durable-health", daemon=True)
    thread.start()
    try:
        yield f"http://{at[0]}:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(http.server.BaseHTTPRequestHandler):
    health: Callable[[], Health]
    timeout = _REQUEST_SECONDS
    server_version = "flask_durable"
    sys_version = ""

    def do_GET(self) -> None:
        """Answer 200 or 503, with the reason."""
        found = self.health()
        match self.path.partition("?")[0]:
            case "/live":
                self._answer(200 if found.is_live else 503, found)
            case "/ready":
                self._answer(200 if found.is_ready else 503, found)
            case _:
                self._say(404, {"error": "there is /live and /ready"})

    do_HEAD = do_GET  # noqa: N815 - the name that the standard library calls

    def _answer(self, status: int, found: Health) -> None:
        self._say(status, {"live": found.is_live, "ready": found.is_ready, "reason": found.reason})

    def _say(self, status: int, document: dict[str, Any]) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: probes come every few seconds."""
