"""Asserts of the simulator's modules say what they compared."""

from __future__ import annotations

import pytest

for _module in ("checks", "faults", "world"):
    pytest.register_assert_rewrite(f"{__name__.rpartition('.')[0]}.{_module}")
