from __future__ import annotations

import json
import traceback
from typing import Any

import pytest

from flask_durable.core.failure import (
    MAX_CAUSES,
    MAX_MESSAGE,
    MAX_TRACEBACK,
    FailureDetails,
    SubOrchestrationFailedError,
    TaskFailedError,
    qualified_name,
)

from .driver import BOOM


class Outer:
    class DeclinedError(Exception):
        pass


class SpeechlessError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def caught(error: BaseException, cause: BaseException | None = None) -> BaseException:
    try:
        if cause is not None:
            raise error from cause
        raise error
    except BaseException as raised:  # noqa: BLE001 - the tests hand over all kinds
        return raised


def raised_while_handling() -> BaseException:
    try:
        raise KeyError("b")
    except KeyError:
        return caught(ValueError("a"))


def chain(details: FailureDetails | None) -> list[str]:
    return [] if details is None else [details.message, *chain(details.cause)]


def test_type_message_and_traceback_are_kept() -> None:  # rule 7, ACT-2
    error = caught(ValueError("boom"))
    details = FailureDetails.from_exception(error)
    assert details == FailureDetails("builtins.ValueError", "boom", "".join(traceback.format_exception(error)))
    assert "raise error" in details.traceback


def test_causes_are_kept_explicit_ones_and_those_of_handling() -> None:  # rule 7
    assert chain(FailureDetails.from_exception(caught(ValueError("a"), KeyError("b")))) == ["a", "'b'"]
    assert chain(FailureDetails.from_exception(raised_while_handling())) == ["a", "'b'"]
    hidden = raised_while_handling()
    hidden.__suppress_context__ = True
    assert chain(FailureDetails.from_exception(hidden)) == ["a"]


def test_chains_of_causes_are_cut_and_may_be_circles() -> None:
    error: BaseException = ValueError("0")
    for number in range(1, 30):
        error = caught(ValueError(str(number)), error)
    assert chain(FailureDetails.from_exception(error)) == [str(number) for number in range(29, 29 - MAX_CAUSES, -1)]
    one, other = ValueError("one"), ValueError("other")
    one.__cause__, other.__cause__ = other, one
    assert chain(FailureDetails.from_exception(one)) == ["one", "other"] * (MAX_CAUSES // 2)


def test_the_details_of_a_failed_task_are_its_cause() -> None:  # SUB-2
    details = FailureDetails.from_exception(TaskFailedError("Activity task #1 failed: boom", BOOM, 1))
    assert details == FailureDetails(
        "flask_durable.core.failure.TaskFailedError",
        "Activity task #1 failed: boom",
        "flask_durable.core.failure.TaskFailedError: Activity task #1 failed: boom\n",
        BOOM,
    )


def test_failures_of_children_of_children_do_not_grow_without_end() -> None:  # rule 7
    details = BOOM
    for level in range(50):
        details = FailureDetails.from_exception(SubOrchestrationFailedError(str(level), details, level))
    assert chain(details) == [str(level) for level in range(49, 49 - MAX_CAUSES, -1)]


def test_text_is_cut_and_cleaned_never_refused() -> None:  # rule 7
    details = FailureDetails.from_exception(caught(ValueError("ü" * 100_000)))
    assert len(details.message) <= MAX_MESSAGE
    assert len(details.traceback) <= MAX_TRACEBACK
    assert details.message.startswith("ü" * 1000)
    assert details.message.endswith("… [100000 chars]")
    assert FailureDetails.from_exception(ValueError("a\ud800b\0")).message == "a?b\0"
    assert FailureDetails.from_exception(ValueError("x" * MAX_MESSAGE)).message == "x" * MAX_MESSAGE


def test_an_exception_without_words_is_still_a_failure() -> None:  # rule 7
    details = FailureDetails.from_exception(caught(SpeechlessError()))
    assert details.message == "<SpeechlessError whose text could not be made>"
    assert details.is_type("SpeechlessError")


def test_an_exception_that_cannot_even_be_formatted_is_still_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> list[str]:
        raise RuntimeError("hints")

    monkeypatch.setattr(traceback, "format_exception", broken)
    assert FailureDetails.from_exception(ValueError("boom")) == FailureDetails("builtins.ValueError", "boom", "")


@pytest.mark.parametrize(
    "error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), RecursionError("deep"), StopIteration(5), ExceptionGroup("g", [ValueError("a")])]
)
def test_exceptions_of_every_kind_can_be_kept(error: BaseException) -> None:  # rule 7
    details = FailureDetails.from_exception(caught(error))
    assert (details.type_name, details.message) == (qualified_name(type(error)), str(error))


def test_a_type_is_known_by_class_qualified_and_short_name() -> None:  # rule 30
    details = FailureDetails.from_exception(Outer.DeclinedError("no"))
    assert details.type_name == f"{__name__}.Outer.DeclinedError"
    assert details.is_type(Outer.DeclinedError)
    assert details.is_type(details.type_name)
    assert details.is_type("DeclinedError")
    assert not details.is_type("Declined")
    assert not details.is_type(Exception)
    assert TaskFailedError("text", details, 1).is_type(Outer.DeclinedError)


def test_a_cause_is_found_at_any_depth() -> None:  # rule 30
    details = FailureDetails("a.A", "", cause=FailureDetails("b.B", "", cause=FailureDetails("builtins.KeyError", "")))
    assert details.is_caused_by("A")
    assert details.is_caused_by(KeyError)
    assert not details.is_caused_by(ValueError)


@pytest.mark.parametrize(
    "details", [BOOM, FailureDetails("a.A", "", is_non_retriable=True), FailureDetails("a.A", "m", "t", FailureDetails("b.B", "n"))]
)
def test_details_survive_storing(details: FailureDetails) -> None:
    assert FailureDetails.from_json(json.loads(json.dumps(details.to_json()))) == details


def test_the_stored_form_has_these_keys() -> None:
    assert FailureDetails("a.A", "m", "t", BOOM, is_non_retriable=True).to_json() == {
        "errorType": "a.A",
        "errorMessage": "m",
        "stackTrace": "t",
        "innerFailure": {
            "errorType": "builtins.ValueError",
            "errorMessage": "boom",
            "stackTrace": "Traceback: boom",
            "innerFailure": None,
            "isNonRetriable": False,
        },
        "isNonRetriable": True,
    }
    assert FailureDetails.from_json({}) == FailureDetails("", "")
