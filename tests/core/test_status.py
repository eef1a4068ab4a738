from __future__ import annotations

import pytest

from flask_durable.core.status import FINAL_STATUSES, LIVE_STATUSES, RuntimeStatus, parse_status


def test_the_words_are_those_of_the_api() -> None:
    assert [str(status) for status in RuntimeStatus] == [
        "Pending", "Running", "Suspended", "Completed", "Failed", "Terminated", "Canceled", "ContinuedAsNew",
    ]  # fmt: skip


def test_every_status_is_final_or_live_but_one_that_is_never_seen() -> None:  # rule 35
    assert {status for status in RuntimeStatus if status.is_final} == {"Completed", "Failed", "Terminated", "Canceled"}
    assert not FINAL_STATUSES & LIVE_STATUSES
    assert set(RuntimeStatus) - FINAL_STATUSES - LIVE_STATUSES == {RuntimeStatus.CONTINUED_AS_NEW}


@pytest.mark.parametrize("status", RuntimeStatus)
def test_a_status_is_found_by_its_name_whatever_the_case(status: RuntimeStatus) -> None:
    assert [parse_status(text) for text in (status.value, status.value.upper(), f" {status.value.lower()} ")] == [status] * 3


@pytest.mark.parametrize("text", ["", "Done", "CONTINUED_AS_NEW", "Completed,Failed"])
def test_other_words_are_no_status(text: str) -> None:
    assert parse_status(text) is None
