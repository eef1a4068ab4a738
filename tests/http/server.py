"""A server process for tests that need a real one: prints its port, serves until its standard input closes.

Usage: python server.py DATABASE [KEY]
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from flask import Flask
from werkzeug.serving import make_server

from flask_durable import FlaskDurable
from flask_durable.http import native
from tests.http.conftest import register_functions


def main(database: str, *keys: str) -> None:
    native.LONGEST_WAIT = 0.3  # a fuzzer asks for waits of years
    app = Flask("server")
    app.config.update(TESTING=True, DURABLE_DATABASE=f"sqlite:///{database}", DURABLE_API_KEYS=list(keys) or None)
    durable = FlaskDurable(app)
    register_functions(durable)  # none that fails: a failure answers 500 when the caller asks for that
    durable.create_tables()
    durable.start_worker()
    server = make_server("127.0.0.1", 0, app, threaded=True)
    sys.stdout.write(f"{server.port}\n")
    sys.stdout.flush()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()
    server.shutdown()
    durable.close()
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
