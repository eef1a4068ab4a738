"""What the errors of the drivers mean: which pass by themselves, and which say that the connection is gone."""

from __future__ import annotations

from collections.abc import Iterator

import peewee

_TRANSIENT_CODES = {"40001", "40P01", "55P03", "53300", "57P03", 1205, 1213, 1040, 1203, 1226}
"""Serialization failure, deadlock, lock wait time-out; too many connections, a server that is just starting: it can be tried again."""

_TRANSIENT_TEXTS = (
    "database is locked",
    "database table is locked",
    "busy",
    "too many clients already",
    "too many connections for",
    "remaining connection slots are reserved",
    "the database system is starting up",
    "no more connections allowed",
)
"""What has no code: a connection that PostgreSQL or a pooler refuses gives its reason as a text only."""

_LOST_CODES = {"57P01", "57P02", "08006", "08003", 2006, 2013, 1927, 4031}
_LOST_TEXTS = ("server closed the connection", "connection is closed", "connection not open", "terminating connection", "the connection is lost")


def is_transient(error: BaseException) -> bool:
    """Whether the same may succeed a moment later."""
    return any(code in _TRANSIENT_CODES or any(part in text for part in _TRANSIENT_TEXTS) for code, text in _causes(error))


def is_lost(error: BaseException) -> bool:
    """Whether the connection was closed by the other end, or before the statement was sent."""
    return any(code in _LOST_CODES or any(part in text for part in _LOST_TEXTS) for code, text in _causes(error))


def as_peewee_error(error: Exception) -> Exception:
    """What Peewee would have raised, had the statement gone through it."""
    for kind in type(error).__mro__:
        found = getattr(peewee, kind.__name__, None)
        if isinstance(found, type) and issubclass(found, peewee.PeeweeException):
            return found(*error.args)
    return peewee.DatabaseError(*error.args)


def _causes(error: BaseException) -> Iterator[tuple[int | str | None, str]]:
    seen: BaseException | None = error
    while seen is not None:
        code = getattr(seen, "sqlstate", None) or (seen.args[0] if seen.args else None)
        yield (code if isinstance(code, int | str) else None), str(seen).lower()
        seen = seen.__cause__ or seen.__context__
