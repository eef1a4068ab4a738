"""Exceptions that come back by class."""

from __future__ import annotations

import enum
import json
import pickle
import traceback
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest

from flask_durable.core.exceptions import MAX_DATA_BYTES, ExceptionTypes
from flask_durable.core.failure import FailureDetails, NonRetriableError, SubOrchestrationFailedError, TaskFailedError
from flask_durable.errors import DurableError, InvalidArgumentError

TEXT = "Activity task #1 failed: no"


class PaymentError(Exception):
    pass


class DeclinedError(PaymentError):
    amount: Decimal
    made = 0

    def __init__(self, reason: str, *, amount: Decimal, gateway: Any = None) -> None:
        super().__init__(reason)
        DeclinedError.made += 1
        self.reason = reason
        self.amount = amount
        self.gateway = gateway
        self.details = "mine"

    def __str__(self) -> str:
        return f"declined: {self.reason}"

    def advice(self) -> str:
        return f"ask for less than {self.amount}"


@dataclass
class LimitError(Exception):
    limit: int
    per: str = "day"


class StubbornError(Exception):
    def __init_subclass__(cls) -> None:
        raise TypeError("no children")


class Meta(type):
    pass


class MetaError(Exception, metaclass=Meta):
    pass


class SlottedError(Exception):
    __slots__ = ("value",)


class GuardedError(Exception):
    @property
    def details(self) -> str:
        return "guarded"

    def is_type(self, _kind: Any) -> bool:
        raise RuntimeError("not for you")


def types(*kinds: type[Exception]) -> ExceptionTypes:
    known = ExceptionTypes()
    for kind in kinds:
        known.add(kind)
    return known


def stored(error: BaseException, known: ExceptionTypes) -> FailureDetails:
    """The failure as another process reads it."""
    return FailureDetails.from_json(json.loads(json.dumps(FailureDetails.from_exception(error, data_of=known.data_of).to_stored())))


def back(error: BaseException, known: ExceptionTypes, base: type[TaskFailedError] = TaskFailedError) -> TaskFailedError:
    return known.error(base, TEXT, stored(error, known), 1)


def test_a_registered_class_is_caught_by_class_and_as_a_failed_task() -> None:  # rule 30
    known = types(DeclinedError)
    before = DeclinedError.made + 1
    error: Any = back(DeclinedError("no", amount=Decimal("9.50")), known)
    for kind in (DeclinedError, PaymentError, TaskFailedError, DurableError):
        with pytest.raises(kind):
            raise error
    assert (str(error), error.args, error.reason, error.amount) == (TEXT, ("no",), "no", Decimal("9.50"))
    assert error.advice() == "ask for less than 9.50"
    assert repr(error) == "DeclinedError('no')"
    assert (error.task_id, error.details.message, error.details.type_name) == (1, "declined: no", f"{__name__}.DeclinedError")
    assert DeclinedError.made == before


def test_what_json_cannot_carry_is_left_out() -> None:  # rule 30
    error: Any = back(DeclinedError("no", amount=Decimal(1), gateway=object()), types(DeclinedError))
    assert not hasattr(error, "gateway")
    large: Any = back(DeclinedError("x" * MAX_DATA_BYTES, amount=Decimal(1)), types(DeclinedError))
    assert large.args[0].startswith("declined: xxx")
    assert large.amount == 1
    assert len(large.details.data) < 200
    assert back(PaymentError(object()), types(PaymentError)).args[0].startswith("<object object")


@pytest.mark.parametrize(
    ("error", "arguments"),
    [
        (ValueError("a", 1), ("a", 1)),
        (KeyError("k"), ("k",)),
        (TimeoutError(), ()),
        (LimitError(5), (5,)),
        (MetaError([1]), ([1],)),
        (SlottedError("s"), ("s",)),
        (GuardedError("g"), ("g",)),
        (NonRetriableError("n"), ("n",)),
    ],
)
def test_classes_of_every_make_come_back(error: Exception, arguments: tuple[Any, ...]) -> None:  # rule 30
    again = back(error, types(type(error)), SubOrchestrationFailedError)
    assert isinstance(again, type(error))
    assert isinstance(again, SubOrchestrationFailedError)
    assert (again.args, str(again)) == (arguments, TEXT)
    assert again.is_type(type(error))
    assert isinstance(again.details, FailureDetails)
    if isinstance(again, LimitError):
        assert (again.limit, again.per) == (5, "day")


def test_an_operating_system_error_has_its_number() -> None:
    error = back(FileNotFoundError(2, "gone"), types(OSError))
    assert isinstance(error, OSError)
    assert not isinstance(error, FileNotFoundError)
    assert (error.errno, error.strerror) == (2, "gone")


def test_a_subclass_is_caught_by_the_class_that_is_registered() -> None:  # rule 30
    error = back(DeclinedError("no", amount=Decimal(1)), types(PaymentError))
    assert isinstance(error, PaymentError)
    assert not isinstance(error, DeclinedError)
    assert error.args == ("no",)


@pytest.mark.parametrize(
    ("error", "kinds"),
    [
        (ValueError("not registered"), (KeyError,)),
        (StubbornError("s"), (StubbornError,)),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), (UnicodeDecodeError,)),
        (ExceptionGroup("g", [ValueError()]), (ExceptionGroup,)),
        (ValueError("any"), (DurableError,)),
    ],
)
def test_what_cannot_be_made_again_is_a_plain_failure(error: Exception, kinds: Any) -> None:  # rule 30
    again = back(error, types(*kinds))
    assert type(again) is TaskFailedError
    assert str(again) == TEXT


def test_nothing_of_an_unregistered_exception_is_kept_but_its_texts() -> None:
    details = FailureDetails.from_exception(DeclinedError("no", amount=Decimal(1)), data_of=types(KeyError).data_of)
    assert details.data is None
    assert details.bases == (f"{__name__}.PaymentError",)


def test_damaged_data_give_a_plain_failure() -> None:
    for data in ("[]", "{", '{"args":5}', '{"attributes":{"amount":"x"}}'):
        details = FailureDetails(f"{__name__}.DeclinedError", "no", data=data)
        assert type(types(DeclinedError).error(TaskFailedError, TEXT, details, 1)) is TaskFailedError


def test_a_failure_that_was_passed_on_is_the_original_one() -> None:  # rule 30, SUB-2
    known = types(DeclinedError)
    inner = back(DeclinedError("no", amount=Decimal(3)), known)
    outer: Any = back(back(inner, known, SubOrchestrationFailedError), known, SubOrchestrationFailedError)
    assert isinstance(outer, DeclinedError)
    assert outer.amount == 3
    assert outer.details.type_name == "flask_durable.core.failure.SubOrchestrationFailedError"
    assert outer.details.cause is not None
    assert outer.details.cause.type_name == "flask_durable.core.failure.TaskFailedError"
    assert outer.is_type(DeclinedError)
    raised = ValueError("another failure")
    raised.__cause__ = inner
    assert not isinstance(back(raised, known), DeclinedError)


def test_the_stored_failure_does_not_depend_on_who_has_registered_what() -> None:  # ACT-4
    known = types(DeclinedError)
    details = stored(DeclinedError("no", amount=Decimal(3)), known)
    one, other = (FailureDetails.from_exception(who.error(TaskFailedError, TEXT, details, 1)) for who in (known, ExceptionTypes()))
    assert one == other
    assert (
        "".join(traceback.format_exception(known.error(TaskFailedError, TEXT, details, 1))) == f"flask_durable.core.failure.TaskFailedError: {TEXT}\n"
    )


def test_a_class_counts_for_its_subclasses_and_a_name_for_itself() -> None:  # rule 30
    details = FailureDetails.from_exception(DeclinedError("no", amount=Decimal(3)))
    assert [details.is_type(kind) for kind in (DeclinedError, PaymentError, ValueError, "DeclinedError", "PaymentError")] == [
        True,
        True,
        False,
        True,
        False,
    ]
    assert FailureDetails("a.A", "", cause=details).is_caused_by(PaymentError)
    assert FailureDetails.from_exception(ConnectionResetError()).is_type(OSError)


@pytest.mark.parametrize("wrong", [DeclinedError("x", amount=Decimal(1)), KeyboardInterrupt, SystemExit, StopIteration, int, "ValueError", enum.Enum])
def test_only_classes_that_code_may_catch_can_be_registered(wrong: Any) -> None:  # rule 30
    with pytest.raises(InvalidArgumentError, match="Register a class derived from Exception"):
        ExceptionTypes().add(wrong)


def test_one_name_is_one_class() -> None:
    known = types(PaymentError, PaymentError)
    other = type("PaymentError", (Exception,), {"__module__": __name__, "__qualname__": "PaymentError"})
    with pytest.raises(InvalidArgumentError, match="already registered"):
        known.add(other)
    with pytest.raises(InvalidArgumentError, match="already registered"):
        types(other).include(known)


def test_nothing_is_found_by_a_name_that_data_bring() -> None:
    details = FailureDetails("pickle.PicklingError", "no", bases=("pickle.PickleError",), data='{"args":["x"]}')
    assert issubclass(pickle.PicklingError, pickle.PickleError)
    assert type(types(DeclinedError).error(TaskFailedError, TEXT, details, 1)) is TaskFailedError
