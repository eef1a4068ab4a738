"""Fixtures for tests with real processes, and the table of what they counted."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import table
from backends import BACKENDS, make_database
from chaos_harness import Chaos
from fault_harness import PrivatePostgres, Proxy, Site
from stepping_clock import SteppingClock


@pytest.fixture
def make_chaos(tmp_path: Path) -> Iterator[Callable[..., Chaos]]:
    """Makes the one folder of a test, with a configuration for its processes; they are killed at the end."""
    made: list[Chaos] = []

    def make(**config: Any) -> Chaos:
        made.append(Chaos(tmp_path, **config))
        return made[-1]

    yield make
    for chaos in made:
        chaos.close()


@pytest.fixture
def chaos(make_chaos: Callable[..., Chaos]) -> Chaos:
    return make_chaos()


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    """The name of a backend: SQLite always, servers where they are given."""
    return str(request.param)


@pytest.fixture
def backend_url(backend: str, tmp_path: Path) -> Iterator[str]:
    """URL of an empty database of the test's own; it is deleted afterwards."""
    with make_database(backend, tmp_path) as url:
        yield url


@pytest.fixture
def make_site_on(tmp_path: Path) -> Iterator[Callable[..., Site]]:
    """Makes the one site of a test on a database that the test names; its processes are killed at the end."""
    made: list[Site] = []

    def make(url: str, **config: Any) -> Site:
        made.append(Site(tmp_path, url, **config))
        return made[-1]

    yield make
    for site in made:
        site.close()


@pytest.fixture
def make_site(make_site_on: Callable[..., Site], backend_url: str) -> Callable[..., Site]:
    """Makes the one site of a test, with a configuration for its processes, on each backend."""
    return lambda **config: make_site_on(backend_url, **config)


@pytest.fixture
def make_postgres() -> Iterator[Callable[..., PrivatePostgres]]:
    """Makes PostgreSQL servers that a test may stop; skipped where there are no programs of one."""
    made: list[PrivatePostgres] = []

    def make(**settings: Any) -> PrivatePostgres:
        made.append(PrivatePostgres(**settings))
        made[-1].start()
        return made[-1]

    yield make
    for server in made:
        server.close()


@pytest.fixture
def make_proxy() -> Iterator[Callable[[str], Proxy]]:
    """Puts a network that may drop before the server of a URL."""
    made: list[Proxy] = []

    def make(url: str) -> Proxy:
        made.append(Proxy(url))
        return made[-1]

    yield make
    for proxy in made:
        proxy.close()


@pytest.fixture
def clock() -> Iterator[SteppingClock]:
    """A wall clock that steps, for processes that are started with its environment."""
    made = SteppingClock()
    yield made
    made.close()


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):  # tests run in several processes; the first one prints
        session.config.workeroutput["chaos"] = list(table.TABLE)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    table.TABLE.extend(map(tuple, getattr(node, "workeroutput", {}).get("chaos", ())))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if table.TABLE:
        terminalreporter.section("chaos")
        for line in table.lines():
            terminalreporter.write_line(line)
