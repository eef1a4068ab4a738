"""Types as annotations name them: readers that make the declared type of a JSON value, or say which part does not fit.

The only way in is an annotation of the app's own code: nothing in a stored value chooses a class. Pydantic models and marshmallow schemas are
known by their methods; neither library is imported.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import functools
import json
import types
import typing
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from enum import Enum
from typing import Any

from flask_durable.core import codec
from flask_durable.core.places import Place, at, below
from flask_durable.core.scalars import SCALARS, MisfitError, Reader, enum_reader, expected, literal_reader
from flask_durable.errors import DurableError, TypeMismatchError
from flask_durable.logs import get_logger

logger = get_logger("flask_durable.core")

Writer = Callable[[Any], Any]

_LISTS = (list, collections.abc.Sequence, collections.abc.MutableSequence, collections.abc.Iterable, collections.abc.Collection)
_DICTS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)
_SETS: dict[Any, type] = {set: set, collections.abc.MutableSet: set, frozenset: frozenset, collections.abc.Set: frozenset}
_ANYTHING = (Any, object)
_WRAPPERS = (typing.Required, typing.NotRequired, typing.Final, typing.ClassVar)


@dataclass(frozen=True, slots=True)
class ValueType:
    """What is known of the type of an input, a result or an event's data; by default nothing, then values stay as JSON has them.

    Args:
        reader: makes the typed value of a JSON value.
        writer: makes a JSON value of a value that only its schema can write.
    """

    reader: Reader | None = None
    writer: Writer | None = None

    def decode(self, text: str | None, *, what: str) -> Any:
        """The typed value of a stored JSON text, a new one at each call (rule 55).

        Args:
            text: the JSON text, or None for an absent value.
            what: its name in error messages, for example ``input of activity 'charge'``.

        Raises:
            TypeMismatchError: the value does not fit; the message says where and why.
        """
        value = codec.decode(text)
        if self.reader is None:
            return value
        token = _read_before.set({})
        try:
            return self.reader(value, None)
        except MisfitError as error:
            raise TypeMismatchError(f"The {what} does not fit{at(error.place)}: {error.reason}") from error.__cause__
        except RecursionError as error:
            raise TypeMismatchError(f"The {what} does not fit: it is nested too deeply") from error
        finally:
            _read_before.reset(token)

    def check(self, text: str | None, *, what: str) -> None:
        """Raise what :meth:`decode` would raise for a text."""
        if self.reader is not None:
            self.decode(text, what=what)

    def encode(self, value: Any, *, what: str, max_bytes: int, max_depth: int) -> str | None:
        """JSON text of a value, by :func:`flask_durable.core.codec.encode`.

        Raises:
            InvalidArgumentError: a part cannot be written; the message says where.
        """
        if self.writer is not None and value is not None:
            try:
                value = self.writer(value)
            except DurableError:
                raise
            except Exception as error:
                raise TypeMismatchError(f"The {what} cannot be written by its schema: {_text_of(error)}") from error
        return codec.encode(value, what=what, max_bytes=max_bytes, max_depth=max_depth)


PLAIN = ValueType()


def value_type(hint: Any, *, what: str) -> ValueType:
    """The type that an annotation names; what is not known is reported once and its values stay as JSON has them.

    Args:
        hint: the annotation, resolved.
        what: whose it is, for the log.
    """
    reader = _Making(what).safely(hint)
    return PLAIN if reader is None else ValueType(reader, _writer(hint))


class _Making:
    """Makes readers; those of one annotation share what they are called in the log."""

    def __init__(self, what: str) -> None:
        self.what = what

    def safely(self, hint: Any) -> Reader | None:
        """As :meth:`reader`, also for what is no type at all."""
        try:
            return self.reader(hint)
        except Exception as error:  # noqa: BLE001 - annotations may be anything: unhashable, endless, or a schema that cannot be made
            logger.warning("%s has an annotation that cannot be used (%s: %s); values stay as JSON has them", self.what, type(error).__name__, error)
            return None

    def reader(self, hint: Any) -> Reader | None:
        """The reader of a type, or None where the JSON value is what is wanted."""
        if hint in _ANYTHING or isinstance(hint, typing.TypeVar):
            return None
        if _is_schema(hint):
            return functools.partial(_load, hint() if isinstance(hint, type) else hint)
        if isinstance(hint, type) and hint in SCALARS:
            return SCALARS[hint]
        origin, arguments = typing.get_origin(hint), typing.get_args(hint)
        if origin is not None:
            return self._generic(hint, origin, arguments)
        if isinstance(hint, typing.NewType):
            return self.reader(hint.__supertype__)
        if hasattr(hint, "__value__") and hasattr(hint, "__type_params__"):  # a `type` statement
            return self.reader(hint.__value__)
        return self._class(hint)

    def _class(self, hint: Any) -> Reader | None:
        if hint in _LISTS or hint in _DICTS or hint in _SETS or hint is tuple:
            return self._generic(hint, hint, ())
        if isinstance(hint, type):
            if issubclass(hint, Enum):
                return enum_reader(hint)
            if _is_model(hint):
                return functools.partial(_validate, hint)
            if dataclasses.is_dataclass(hint) or typing.is_typeddict(hint) or (issubclass(hint, tuple) and hasattr(hint, "_fields")):
                return functools.partial(_read_fields, hint)
        logger.warning(
            "%s is annotated with %r, which is no type that values are made of (docs/values.md); they stay as JSON has them", self.what, hint
        )
        return None

    def _generic(self, hint: Any, origin: Any, arguments: tuple[Any, ...]) -> Reader | None:
        if origin is typing.Annotated:
            schema = next((each for each in hint.__metadata__ if _is_schema(each)), None)
            return self.reader(hint.__origin__ if schema is None else schema)
        if origin is typing.Literal:
            return literal_reader(arguments)
        if origin in (typing.Union, types.UnionType):
            return self._union(arguments)
        if origin in _WRAPPERS:
            return self.reader(arguments[0])
        if origin is tuple:
            return self._tuple(arguments)
        if origin in _LISTS:
            return functools.partial(_read_list, list, self._argument(arguments, 0))
        if origin in _SETS:
            return functools.partial(_read_list, _SETS[origin], self._argument(arguments, 0))
        if origin in _DICTS:
            key = self._argument(arguments, 0)
            return functools.partial(_read_dict, None if key is SCALARS[str] else key, self._argument(arguments, 1))
        return self._class(origin)  # a generic dataclass or model; its parameters are not followed

    def _argument(self, arguments: tuple[Any, ...], index: int) -> Reader | None:
        return self.reader(arguments[index]) if index < len(arguments) else None

    def _union(self, arguments: tuple[Any, ...]) -> Reader | None:
        # An int is a float too, so the exact type has to be tried first; apart from that, the order is that of the annotation
        members = sorted(arguments, key=lambda each: each is float and int in arguments)
        readers: list[tuple[Any, Reader]] = []
        for member in members:
            reader = self.reader(member)
            if reader is None:
                return None
            readers.append((member, reader))
        return functools.partial(_read_union, readers)

    def _tuple(self, arguments: tuple[Any, ...]) -> Reader:
        if not arguments:
            return functools.partial(_read_list, tuple, None)
        if arguments[-1] is Ellipsis:
            return functools.partial(_read_list, tuple, self.reader(arguments[0]))
        return functools.partial(_read_tuple, [self.reader(each) for each in arguments])


# -- readers of values with parts


def _read_list(kind: type, item: Reader | None, value: Any, place: Place) -> Any:
    if not isinstance(value, list):
        raise expected(place, kind.__name__, value)
    items = value if item is None else [item(each, (place, index)) for index, each in enumerate(value)]
    try:
        return kind(items)
    except TypeError as error:
        raise MisfitError(place, f"expected {kind.__name__}: {error}") from error


def _read_tuple(readers: list[Reader | None], value: Any, place: Place) -> Any:
    if not isinstance(value, list) or len(value) != len(readers):
        raise expected(place, f"a list of {len(readers)}", value)
    return tuple(_part(reader, each, (place, index)) for index, (reader, each) in enumerate(zip(readers, value, strict=True)))


def _read_dict(key: Reader | None, item: Reader | None, value: Any, place: Place) -> Any:
    if not isinstance(value, dict):
        raise expected(place, "dict", value)
    return {_part(key, name, (place, name)): _part(item, each, (place, name)) for name, each in value.items()}


_read_before: ContextVar[dict[tuple[int, int], Any]] = ContextVar("flask_durable.unions")
"""What unions have made of the parts of the present value: members that hold the same union must not read each part again and again."""


def _read_union(readers: list[tuple[Any, Reader]], value: Any, place: Place) -> Any:
    if not isinstance(value, dict | list):
        return _first_that_fits(readers, value, place)
    known, key = _read_before.get(), (id(readers), id(value))
    if key not in known:
        try:
            known[key] = _first_that_fits(readers, value, place)
        except MisfitError as error:
            known[key] = error
    result = known[key]
    if isinstance(result, MisfitError):
        raise result
    return result


def _first_that_fits(readers: list[tuple[Any, Reader]], value: Any, place: Place) -> Any:
    misfits: list[MisfitError] = []
    for _, reader in readers:
        try:
            return reader(value, place)
        except MisfitError as error:
            misfits.append(error)
    inner = [misfit for misfit in misfits if misfit.place != place]
    if len(inner) == 1:  # one member had the right shape: what is wrong inside it is the better message
        raise inner[0]
    raise expected(place, " or ".join("null" if member is type(None) else _name(member) for member, _ in readers), value)


@dataclass(frozen=True, slots=True)
class _Fields:
    readers: dict[str, Reader | None]
    required: frozenset[str]
    is_closed: bool


def _read_fields(kind: type, value: Any, place: Place) -> Any:
    fields = _fields_of(kind)
    is_tuple = issubclass(kind, tuple)
    if is_tuple and isinstance(value, list) and len(value) <= len(fields.readers):
        value = dict(zip(fields.readers, value, strict=False))
    if not isinstance(value, dict):
        raise expected(place, kind.__name__, value)
    unknown = value.keys() - fields.readers.keys()
    if unknown and fields.is_closed:
        known = ", ".join(fields.readers) or "none"
        raise MisfitError(place, f"{kind.__name__} has no field {min(unknown)!r:.100}; its fields are {known}")
    missing = fields.required - value.keys()
    if missing:
        raise MisfitError(place, f"the field {min(missing)!r} of {kind.__name__} is missing")
    read = {name: _part(fields.readers.get(name), each, (place, name)) for name, each in value.items()}
    return _built(kind, read, place)


def _built(kind: type, fields: dict[str, Any], place: Place) -> Any:
    try:
        return kind(**fields)
    except DurableError as error:
        raise MisfitError(place, str(error)) from error
    except Exception as error:
        raise _explained(error, place) from error


@functools.lru_cache(maxsize=1024)
def _fields_of(kind: type) -> _Fields:
    making = _Making(f"A field of {kind.__qualname__}")
    try:
        hints = typing.get_type_hints(kind, include_extras=True)
    except Exception as error:  # noqa: BLE001 - it evaluates annotations, which may be anything
        logger.warning(
            "The annotations of %s cannot be resolved (%s: %s); its fields stay as JSON has them", kind.__qualname__, type(error).__name__, error
        )
        hints = {}
    if typing.is_typeddict(kind):
        marks = {name: typing.get_origin(hint) for name, hint in hints.items()}  # in a module with quoted annotations only these tell
        by_default: frozenset[str] = kind.__required_keys__  # type: ignore[attr-defined]
        required = frozenset(
            name for name, mark in marks.items() if mark is typing.Required or (name in by_default and mark is not typing.NotRequired)
        )
        return _Fields({name: making.safely(hint) for name, hint in hints.items()}, required, is_closed=False)
    if dataclasses.is_dataclass(kind):
        given = [field for field in dataclasses.fields(kind) if field.init]
        missing = dataclasses.MISSING
        required = frozenset(field.name for field in given if field.default is missing and field.default_factory is missing)
        return _Fields({field.name: making.safely(hints.get(field.name, Any)) for field in given}, required, is_closed=True)
    names: tuple[str, ...] = kind._fields  # type: ignore[attr-defined]
    defaults: dict[str, Any] = kind._field_defaults  # type: ignore[attr-defined]
    return _Fields({name: making.safely(hints.get(name, Any)) for name in names}, frozenset(names) - defaults.keys(), is_closed=True)


def _part(reader: Reader | None, value: Any, place: Place) -> Any:
    return value if reader is None else reader(value, place)


def _name(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint).replace("typing.", "")


# -- models and schemas, known by their methods


def _is_model(hint: Any) -> bool:
    return callable(getattr(hint, "model_validate_json", None)) and callable(getattr(hint, "model_dump", None))


def _is_schema(hint: Any) -> bool:
    return callable(getattr(hint, "load", None)) and callable(getattr(hint, "dump", None)) and hasattr(hint, "_declared_fields")


def _validate(model: Any, value: Any, place: Place) -> Any:
    # As JSON text, and not as Python values: only so are times and the like taken as texts by models that are strict
    try:
        return model.model_validate_json(json.dumps(value))
    except Exception as error:
        raise _explained(error, place) from error


def _load(schema: Any, value: Any, place: Place) -> Any:
    try:
        return schema.load(value)
    except Exception as error:
        raise _explained(error, place) from error


def _explained(error: Exception, place: Place) -> MisfitError:
    """The first thing that a validator says, with its place."""
    steps: Iterable[int | str] = ()
    text = _text_of(error)
    errors: Any = getattr(error, "errors", None)
    messages: Any = getattr(error, "messages", None)
    if callable(errors):
        first: Any = next(iter(errors()), {})
        steps, text = first.get("loc", ()), first.get("msg", text)
    elif isinstance(messages, dict):
        path = list(_first(messages))
        steps, text = [step for step in path[:-1] if step != "_schema"], str(path[-1])
    return MisfitError(below(place, steps), text)


def _first(messages: Any) -> Iterator[Any]:
    while isinstance(messages, dict | list) and messages:
        if isinstance(messages, dict):
            key = next(iter(messages))
            yield key
            messages = messages[key]
        else:
            messages = messages[0]
    yield messages


def _text_of(error: Exception) -> str:
    return str(error) or type(error).__name__


# -- writers


def _writer(hint: Any) -> Writer | None:
    """What writes values of a type that only its schema can write; all others are written by what they are."""
    if _is_schema(hint):
        schema = hint() if isinstance(hint, type) else hint
        return lambda value: value if codec.is_json(value) else schema.dump(value)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return next((_writer(each) for each in hint.__metadata__ if _is_schema(each)), None) or _writer(hint.__origin__)
    if origin in (typing.Union, types.UnionType):
        writers = [writer for writer in map(_writer, arguments) if writer is not None]
        return writers[0] if len(writers) == 1 else None
    if origin in _LISTS and arguments:
        item = _writer(arguments[0])
        return None if item is None else lambda value: [item(each) for each in value]
    return None
