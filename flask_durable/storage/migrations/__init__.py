"""Numbered, forward-only changes of the schema: ``STEPS[n]`` leads from version n to n + 1."""

from __future__ import annotations

from collections.abc import Callable

from flask_durable.storage.database import Sql
from flask_durable.storage.migrations import to_version_2, to_version_3, to_version_4

STEPS: dict[int, Callable[[Sql], None]] = {1: to_version_2.upgrade, 2: to_version_3.upgrade, 3: to_version_4.upgrade}
"""A new database gets the newest tables at once; an older one goes through the steps from its version on."""
