"""The store in memory against the same suite as the real ones: it may stand in for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.storage import conftest as storage
from tests.storage import test_store_contract as contract

from .model_store import ModelStore

NEEDS_TABLES = {
    "test_a_result_of_a_terminated_instance_is_dropped",
    "test_purging_deletes_every_row_of_an_ended_instance",
    "test_what_a_dead_worker_held_is_taken_over",
    "test_what_is_no_longer_handed_out_says_so_also_without_a_death",
    "test_a_batch_is_written_whole_or_not_at_all",
}
"""These look into tables, or break something in them by hand."""

for _name, _test in vars(contract).items():
    if _name.startswith("test_") and _name not in NEEDS_TABLES:
        globals()[_name] = _test

clock = storage.clock


@pytest.fixture
def make_store(clock: Any) -> Callable[..., ModelStore]:
    return lambda **_: ModelStore(clock)


@pytest.fixture
def store(make_store: Callable[..., ModelStore]) -> ModelStore:
    return make_store()


@pytest.fixture
def desk(store: Any) -> storage.Desk:
    return storage.Desk(store)


@pytest.fixture
def timed_desk(desk: storage.Desk) -> storage.Desk:
    return desk
