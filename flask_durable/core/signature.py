"""Signature: whether a function takes an input, and the types that its annotations give its input and its result.

Annotations are resolved once per function, when it first runs or is called, so that they may name classes that the module defines later. What
cannot be resolved is reported once, and such values stay as JSON has them.
"""

from __future__ import annotations

import collections.abc
import inspect
import typing
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from types import FunctionType
from typing import Any, TypeAlias

from flask_durable.core.typed import PLAIN, ValueType, value_type
from flask_durable.logs import get_logger

logger = get_logger("flask_durable.core")

Function: TypeAlias = Callable[..., Any]

_GENERATORS = (collections.abc.Generator, collections.abc.AsyncGenerator)
_COROUTINES = (collections.abc.Coroutine,)
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_NOTHING_DECLARED = (None, type(None), inspect.Signature.empty)


@dataclass(frozen=True, slots=True)
class Signature:
    """What a registered function takes and gives.

    Args:
        takes_input: whether it has a parameter for the input.
        has_default: whether that parameter has a default, which stands for an absent input.
        input: type of the input.
        result: type of what it returns.
    """

    takes_input: bool = True
    has_default: bool = False
    input: ValueType = PLAIN
    result: ValueType = PLAIN

    def arguments(self, text: str | None, *, what: str) -> tuple[Any, ...]:
        """The input as the arguments to call the function with.

        Raises:
            TypeMismatchError: it does not fit.
        """
        if not self.takes_input or (text is None and self.has_default):
            return ()
        return (self.input.decode(text, what=what),)


def activity_signature(function: Function) -> Signature:
    """The signature of an activity: its input is the first parameter."""
    return _known(function, 0)


def orchestrator_signature(function: Function) -> Signature:
    """The signature of an orchestrator: its input is the second parameter, after the context."""
    return _known(function, 1)


_cache: tuple[weakref.WeakKeyDictionary[Function, Signature], weakref.WeakKeyDictionary[Function, Signature]] = (
    weakref.WeakKeyDictionary(),
    weakref.WeakKeyDictionary(),
)


def _known(function: Function, index: int) -> Signature:
    try:
        found = _cache[index].get(function)
        if found is None:
            found = _cache[index][function] = _made(function, index)
        return found
    except TypeError:  # what has no weak references or no hash is looked at each time
        return _made(function, index)


def _made(function: Function, index: int) -> Signature:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return Signature()
    parameter = _input_parameter(signature, index)
    if parameter is None:
        return Signature(takes_input=False, result=_result_type(function, signature))
    is_variable = parameter.kind is inspect.Parameter.VAR_POSITIONAL
    has_default = parameter.default is not inspect.Parameter.empty
    given = PLAIN if is_variable else _resolved(function, parameter.annotation, f"The input of {_name(function)}")
    return Signature(True, has_default, given, _result_type(function, signature))


def _input_parameter(signature: inspect.Signature, index: int) -> inspect.Parameter | None:
    positional = [parameter for parameter in signature.parameters.values() if parameter.kind in _POSITIONAL]
    if len(positional) > index:
        return positional[index]
    return next((parameter for parameter in signature.parameters.values() if parameter.kind is inspect.Parameter.VAR_POSITIONAL), None)


def _result_type(function: Function, signature: inspect.Signature) -> ValueType:
    if signature.return_annotation in _NOTHING_DECLARED:
        return PLAIN
    what = f"The result of {_name(function)}"
    hint = _hint(function, signature.return_annotation, what)
    if hint in _NOTHING_DECLARED:
        return PLAIN
    if inspect.isgeneratorfunction(inspect.unwrap(function)) or typing.get_origin(hint) in (*_GENERATORS, *_COROUTINES):
        # Generator[what it yields, what it is sent, what it returns]; an Iterator does not say what it returns
        arguments = typing.get_args(hint)
        if typing.get_origin(hint) not in (*_GENERATORS, *_COROUTINES) or len(arguments) < 3 or arguments[2] in _NOTHING_DECLARED:
            return PLAIN
        hint = arguments[2]
    return value_type(hint, what=what)


def _resolved(function: Function, annotation: Any, what: str) -> ValueType:
    if annotation is inspect.Parameter.empty:
        return PLAIN
    return value_type(_hint(function, annotation, what), what=what)


def _hint(function: Function, annotation: Any, what: str) -> Any:
    """An annotation without its quotes."""
    plain_function = _plain_function(function)

    def only() -> None:
        """Carries one annotation: one that cannot be resolved, such as the context's, must not spoil the others."""

    only.__annotations__ = {"hint": annotation}
    names = getattr(plain_function, "__globals__", {})
    try:
        return typing.get_type_hints(only, globalns=names, localns=_enclosed(plain_function), include_extras=True)["hint"]
    except Exception as error:  # noqa: BLE001 - it evaluates the annotation, which may be anything
        logger.warning(
            "%s has the annotation %r, which cannot be resolved (%s: %s); values stay as JSON has them", what, annotation, type(error).__name__, error
        )
        return Any


def _enclosed(function: Any) -> dict[str, Any]:
    """Names of the enclosing function that this one uses."""
    if not isinstance(function, FunctionType) or function.__closure__ is None:
        return {}
    return dict(inspect.getclosurevars(function).nonlocals)


def _plain_function(function: Any) -> Any:
    function = inspect.unwrap(getattr(function, "func", function))
    function = getattr(function, "__func__", function)
    return function if isinstance(function, FunctionType) else inspect.getattr_static(type(function), "__call__", function)


def _name(function: Function) -> str:
    return f"function {getattr(function, '__qualname__', repr(function))}"
