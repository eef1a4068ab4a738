"""Numbered, forward-only changes of the schema: ``STEPS[n]`` leads from version n to n + 1."""

from __future__ import annotations

from collections.abc import Callable

from flask_durable.storage.database import Sql

STEPS: dict[int, Callable[[Sql], None]] = {}
"""A new database gets the newest tables at once; an older one goes through the steps from its version on."""
