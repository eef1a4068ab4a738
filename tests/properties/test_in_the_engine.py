"""Random programs on the real engine, against the same model."""

from __future__ import annotations

from collections.abc import Callable

from flask_durable import FlaskDurable

from .engine_run import EngineRun

AT_A_TIME = 100
"""Seeds of one run on one database: two hundred programs, and their children."""


def test_random_programs_run_by_the_engine_do_what_the_model_says(  # rules 1 to 6, 9, 14, 20 to 22, 27, 31, 32, 36, 40, 41, WRK-1 to WRK-3
    make_durable: Callable[..., FlaskDurable], engine_seeds: range
) -> None:
    for first in range(engine_seeds.start, engine_seeds.stop, AT_A_TIME):
        EngineRun(make_durable, range(first, min(first + AT_A_TIME, engine_seeds.stop))).run()
