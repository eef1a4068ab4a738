"""What fault scenarios need besides the harness: databases of their own on each backend, a private PostgreSQL, and a network that drops."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import pwd
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import chaos_app
import fault_app
import pytest
from chaos_harness import HERE, PREFIX, Chaos, Group, free_port, wait_until
from reading import Reader

from flask_durable.core.execution import Execution
from flask_durable.storage.interface import InstanceRecord

FAULTS = ("Poison", "PoisonTurn", "Scarce", "UseDatabase")
LENGTH = float(os.environ.get("FLASK_DURABLE_CHAOS_FACTOR", "1"))
"""Scenarios take so many times as long, with as much more work, as the slice that runs by default."""


def execute(url: str, text: str, *parameters: Any) -> list[tuple[Any, ...]]:
    """Run one statement, with ``?`` for values, on a connection of its own; returns its rows."""
    with contextlib.closing(Reader(url)) as reader, reader._cursor() as cursor:
        return reader._run(cursor, text, parameters)


class Site(Chaos):
    """The processes of :class:`Chaos` with an app that can do what nobody should, on a database that may be away.

    Args:
        folder: for all files.
        url: the database as this test sees it.
        served_url: the database as the processes see it, when something is in between.
        config: configuration keys of the app.
    """

    without_effects = FAULTS

    def __init__(self, folder: Path, url: str, *, served_url: str | None = None, **config: Any) -> None:
        super().__init__(folder, url, **config)
        self.served_url = served_url or url
        self.python = sys.executable
        if self.reader.is_sqlite:
            self.database = Path(url.removeprefix("sqlite:///"))
        shutil.copy(HERE / "fault_app.py", folder / "fault_app.py")

    @property
    def backend(self) -> str:
        return self.url.partition(":")[0]

    def environment(self, **more: str) -> dict[str, str]:
        return super().environment(**{"CHAOS_DATABASE": self.served_url, **more})

    def flask(self, *words: str, **environment: str) -> Group:
        return self.begin("-m", "flask", "--app", "fault_app", *words, **environment)

    def gunicorn(self, *words: str, workers: int = 4, **environment: str) -> Group:
        bind = ["--bind", f"127.0.0.1:{self.port}", "--no-control-socket"]
        return self.begin("-m", "gunicorn", "--workers", str(workers), *bind, *words, "fault_app:app", **environment)

    def execution_of(self, record: InstanceRecord) -> Execution:
        registry = (fault_app.faults if record.name in FAULTS else chaos_app.functions).registry
        return Execution(registry.orchestrator(record.name, record.version).function, name_of=registry.name_of, function_of=registry.function_of)

    def settle_but(self, scenario: str, fault: str, expected: int, *, others: int, remark: str = "") -> None:
        """As :meth:`settle`, where so many instances have not ended: what else must hold, holds."""
        found = self.check(expected, is_over=False)
        open_ = [row[0] for row in self.rows("SELECT instance_id FROM durable_instance WHERE status <> 'Completed'")]
        self.report(scenario, fault, 1, found, remark)
        assert self.integrity() == "ok"
        assert found.broken == []
        assert (found.lost, found.doubled, len(open_)) == (0, 0, others)

    def rows(self, text: str, *parameters: Any) -> list[tuple[Any, ...]]:
        with contextlib.closing(self.reader):  # a server may have gone away and come back since the last look
            return super().rows(text, *parameters)

    def start(self, count: int, *, name: str = "Chain", steps: int = 2, seconds: float = 0.02, prefix: str = "order-") -> None:
        """Start instances through the client of this process."""
        for number in range(count):
            self.client.start(name, {"steps": steps, "seconds": seconds}, instance_id=f"{prefix}{number}")

    def wait_for_all(self, count: int, seconds: float = 60) -> float:
        return wait_until(lambda: self.finished() >= count, f"all {count} are completed; {self.finished()} are", seconds)


# -- a PostgreSQL of our own

BINARIES = next((path for path in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True) if (path / "initdb").exists()), None)
if BINARIES is None and shutil.which("initdb"):
    BINARIES = Path(str(shutil.which("initdb"))).parent


def _unprivileged() -> list[str] | None:
    """Words before a command that run it as a user whom PostgreSQL accepts; None where there is none."""
    if os.geteuid() != 0:
        return []
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            user = pwd.getpwnam(name)
            if shutil.which("setpriv"):
                return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
    return None


class PrivatePostgres:
    """A PostgreSQL server that one test may stop and start as it likes.

    Args:
        environment: variables of its processes.
        settings: of its configuration.
    """

    def __init__(self, *, environment: Mapping[str, str] | None = None, **settings: Any) -> None:
        words = _unprivileged()
        if BINARIES is None or words is None:
            pytest.skip("the programs of a PostgreSQL server, and a user who may run them, are not on this machine")
        self._words = words
        self._environment = {**os.environ, **(environment or {})}
        self._folder = Path(tempfile.mkdtemp(prefix="durable-postgres-"))
        self._data = self._folder / "data"
        if os.geteuid() == 0:
            user = pwd.getpwuid(int(words[1].partition("=")[2]))
            os.chown(self._folder, user.pw_uid, user.pw_gid)
        self.port = free_port()
        self.url = f"postgresql://chaos@127.0.0.1:{self.port}/postgres"
        self._settings = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "max_connections": 60, **settings}
        self._process: subprocess.Popen[bytes] | None = None
        subprocess.run(
            [*words, str(BINARIES / "initdb"), "-D", str(self._data), "-U", "chaos", "--auth=trust", "--no-sync", "-E", "UTF8", "--locale=C"],
            check=True,
            capture_output=True,
            cwd="/",
        )

    def start(self) -> None:
        """Start, and wait until it answers."""
        options = [word for name, value in self._settings.items() for word in ("-c", f"{name}={value}")]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self._words, str(BINARIES) + "/postgres", "-D", str(self._data), "-p", str(self.port), *options],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                cwd="/",
                env=self._environment,
            )
        wait_until(self.answers, "PostgreSQL answers")

    def answers(self) -> bool:
        try:
            return execute(self.url, "SELECT 1") == [(1,)]
        except Exception:  # noqa: BLE001 - the driver is optional
            return False

    def stop(self) -> None:
        """Stop as it stands (``immediate``): every connection is closed, and what was not committed is gone."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(30)
            self._process = None

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)


# -- a network that drops


class Proxy:
    """A TCP proxy before a server: what it is told to hold does not arrive, and nobody is told.

    Args:
        url: of a database on that server; ``self.url`` is the same through the proxy.
    """

    def __init__(self, url: str) -> None:
        parts = urllib.parse.urlsplit(url)
        self._target = (parts.hostname or "127.0.0.1", parts.port or 5432)
        self._listener = socket.create_server(("127.0.0.1", 0))
        user = parts.netloc.rpartition("@")[0]
        self.url = parts._replace(netloc=f"{user}@127.0.0.1:{self._listener.getsockname()[1]}").geturl()
        self.holds_up = threading.Event()
        self.holds_down = threading.Event()
        self._is_closed = False
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()

    def cut(self, *, up: bool = True, down: bool = True) -> None:
        """From now on nothing arrives, in one or both directions; connections stay as they are."""
        if up:
            self.holds_up.set()
        if down:
            self.holds_down.set()

    def heal(self) -> None:
        """What was held arrives now, as it does when a network is back before the senders have given up."""
        self.holds_up.clear()
        self.holds_down.clear()

    def close(self) -> None:
        self._is_closed = True
        self._listener.close()
        for pair in self._pairs:
            for end in pair:
                end.close()

    def _accept(self) -> None:
        while not self._is_closed:
            try:
                client, _ = self._listener.accept()
                while self.holds_up.is_set() or self.holds_down.is_set():  # a handshake needs both ways
                    time.sleep(0.02)
                server = socket.create_connection(self._target)
            except OSError:
                continue
            self._pairs.append((client, server))
            threading.Thread(target=self._forward, args=(client, server, self.holds_up), daemon=True).start()
            threading.Thread(target=self._forward, args=(server, client, self.holds_down), daemon=True).start()

    def _forward(self, source: socket.socket, target: socket.socket, holds: threading.Event) -> None:
        try:
            while not self._is_closed:
                if not select.select([source], [], [], 0.2)[0]:
                    continue
                data = source.recv(65536)
                while holds.is_set() and not self._is_closed:
                    time.sleep(0.01)
                if not data:
                    break
                target.sendall(data)
        except (OSError, ValueError):
            pass  # the other direction has closed them
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


# -- callers that go on asking


class Answer(NamedTuple):
    """What a caller was told; status 0 where no answer came."""

    instance_id: str
    status: int
    retry_after: str | None
    seconds: float


class Callers:
    """Threads that start one instance after the other over HTTP, and remember what they were told."""

    def __init__(self, site: Site, *, threads: int = 2, pause: float = 0.05, seconds: float = 60, steps: int = 2) -> None:
        self._site = site
        self._pause = pause
        self._seconds = seconds
        self._order = {"steps": steps, "seconds": 0.05}
        self._is_over = threading.Event()
        self.answers: list[Answer] = []
        self._threads = [threading.Thread(target=self._ask, args=(number,), daemon=True) for number in range(threads)]

    def __enter__(self) -> Callers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join(self._seconds + 10)

    def _ask(self, number: int) -> None:
        for count in itertools.count():
            if self._is_over.wait(self._pause):
                return
            self.answers.append(self.start(f"call-{number}-{count}"))

    def start(self, instance_id: str) -> Answer:
        """Start one instance; never raises for the want of an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self._site.port, timeout=self._seconds)
        began = time.monotonic()
        try:
            body = json.dumps({"input": self._order, "instanceId": instance_id})
            connection.request("POST", f"{PREFIX}/start/Chain", body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            answer.read()
            if answer.status == 202:
                self._site.accepted.add(instance_id)
            return Answer(instance_id, answer.status, answer.getheader("Retry-After"), time.monotonic() - began)
        except OSError:
            return Answer(instance_id, 0, None, time.monotonic() - began)
        finally:
            connection.close()

    def statuses(self) -> Counter[int]:
        return Counter(answer.status for answer in self.answers)

    def longest(self) -> float:
        return max((answer.seconds for answer in self.answers), default=0.0)

    def check(self, *, deadline: float) -> None:
        """Every caller was told 202 or 503 with Retry-After, in time."""
        strange = [answer for answer in self.answers if answer.status not in (202, 503) or (answer.status == 503 and not answer.retry_after)]
        assert strange == []
        assert self.longest() < deadline, f"a caller waited {self.longest():.1f} s"


def settle_calls(site: Site, callers: Callers, scenario: str, fault: str, *, repeats: int, remark: str, deadline: float) -> None:
    """All that was accepted is done, also what was begun and not acknowledged; and the callers were told so in time."""
    wait_until(lambda: site.unfinished() == 0, "all are completed", 60)
    told = ", ".join(f"{count} x {status}" for status, count in sorted(callers.statuses().items()))
    site.settle(scenario, fault, site.finished(), repeats=repeats, remark=f"{remark}; told {told}; longest {callers.longest():.1f} s")
    callers.check(deadline=deadline)
