"""How many random programs are run, and from which seed on."""

from __future__ import annotations

import os

import pytest

for _module in ("interpreter", "verdict", "simulation", "engine_run"):
    pytest.register_assert_rewrite(f"{__name__.rpartition('.')[0]}.{_module}")

PROGRAMS = os.environ.get("FLASK_DURABLE_TEST_PROGRAMS")
IN_THE_CORE, IN_THE_ENGINE = 2_000, 300
SEED = int(os.environ.get("FLASK_DURABLE_TEST_SEED", "0"))


@pytest.fixture
def seeds() -> range:
    """The seeds of a run in the core; each stands for two programs."""
    return range(SEED, SEED + int(PROGRAMS or IN_THE_CORE) // 2)


@pytest.fixture
def engine_seeds() -> range:
    """The seeds of a run on the real engine, which takes thirty times as long."""
    return range(SEED, SEED + int(PROGRAMS or IN_THE_ENGINE) // 2)
