"""Filters of lists and purges as SQL conditions, and keyset pages."""

from __future__ import annotations

import json
import sys
from typing import Any

from flask_durable.storage.database import Sql
from flask_durable.storage.interface import InstanceFilter, Order, PagePosition

_ESCAPE = "!"


def conditions(sql: Sql, hub: str, wanted: InstanceFilter) -> tuple[str, list[Any]]:
    """The WHERE clause of a filter and its parameters."""
    parts = ["hub = ?"]
    extra: list[Any] = [hub]
    if wanted.statuses:
        parts.append(f"status IN ({', '.join('?' * len(wanted.statuses))})")
        extra.extend(status.value for status in wanted.statuses)
    for column, value in (("name", wanted.name), ("version", wanted.version), ("parent_instance_id", wanted.parent_instance_id)):
        if value is not None:
            parts.append(f"{column} = ?")
            extra.append(value)
    if wanted.id_prefix:
        parts.append(f"instance_id LIKE ? ESCAPE '{_ESCAPE}'")
        extra.append(_escaped(wanted.id_prefix) + "%")
        # LIKE folds case on SQLite; the comparison by code points does not (ids are compared byte for byte everywhere).
        parts.append(f"SUBSTR(instance_id, 1, {len(wanted.id_prefix)}) = ?")
        extra.append(wanted.id_prefix)
        for condition, bound in _prefix_range(sql, wanted.id_prefix):
            parts.append(condition)
            extra.append(bound)
    _add_window(wanted, parts, extra)
    for key, value in wanted.tags.items():
        # Not LIKE, which folds case on SQLite
        parts.append("REPLACE(tags, ?, '') <> tags")
        extra.append(_pair(key, value))
    for column, is_set in (("parked_reason", wanted.is_parked), ("version", wanted.has_version), ("parent_instance_id", _negated(wanted.is_root))):
        if is_set is not None:
            parts.append(f"{column} IS {'NOT ' if is_set else ''}NULL")
    return " AND ".join(parts), extra


def _prefix_range(sql: Sql, prefix: str) -> list[tuple[str, str]]:
    """Conditions, each with its value, that keep an index's read to ids that begin so, as they are sorted byte for byte."""
    column = 'instance_id COLLATE "C"' if sql.is_postgresql else "instance_id"
    found = [(f"{column} >= ?", prefix)]
    head = prefix.rstrip(chr(sys.maxunicode))
    if head:
        following = ord(head[-1]) + 1
        found.append((f"{column} < ?", head[:-1] + chr(0xE000 if 0xD800 <= following <= 0xDFFF else following)))
    return found


def after_position(position: PagePosition | None, order: Order) -> tuple[str, list[Any]]:
    """The condition that begins after a position, and its parameters."""
    if position is None:
        return " AND completed_at IS NOT NULL" if order.is_by_completion else "", []
    column = order_column(order)
    sign = "<" if order.is_descending else ">"
    # The first part alone bounds the index scan; the second one breaks ties.
    text = f" AND {column} {sign}= ? AND ({column} {sign} ? OR instance_id {sign} ?)"
    return text, [position.at, position.at, position.instance_id]


def ordering(order: Order, first: str = "") -> str:
    """The ORDER BY clause; ``first`` is a column that IS NULL in all rows: PostgreSQL does not see that it sorts nothing, and would sort all."""
    direction = "DESC" if order.is_descending else "ASC"
    columns = [first, order_column(order), "instance_id"] if first else [order_column(order), "instance_id"]
    return f" ORDER BY {', '.join(f'{column} {direction}' for column in columns)}"


def order_column(order: Order) -> str:
    """The column by which a list is sorted."""
    return "completed_at" if order.is_by_completion else "created_at"


def _add_window(wanted: InstanceFilter, parts: list[str], values: list[Any]) -> None:
    below = "<=" if wanted.created_to_inclusive else "<"
    for condition, moment in (
        ("created_at >=", wanted.created_from),
        (f"created_at {below}", wanted.created_to),
        ("completed_at >=", wanted.completed_from),
        (f"completed_at {below}", wanted.completed_to),
    ):
        if moment is not None:
            parts.append(f"{condition} ?")
            values.append(moment)


def _negated(value: bool | None) -> bool | None:
    return None if value is None else not value


def _pair(key: str, value: str) -> str:
    return f"{json.dumps(key, ensure_ascii=False)}:{json.dumps(value, ensure_ascii=False)}"


def _escaped(text: str) -> str:
    for character in (_ESCAPE, "%", "_"):
        text = text.replace(character, _ESCAPE + character)
    return text
