"""Filters of lists and purges as SQL conditions, and keyset pages."""

from __future__ import annotations

import json
from typing import Any

from flask_durable.storage.interface import InstanceFilter, Order, PagePosition

_ESCAPE = "!"


def conditions(hub: str, wanted: InstanceFilter) -> tuple[str, list[Any]]:
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
    _add_window(wanted, parts, extra)
    for key, value in wanted.tags.items():
        # Not LIKE, which folds case on SQLite
        parts.append("REPLACE(tags, ?, '') <> tags")
        extra.append(_pair(key, value))
    if wanted.is_parked is not None:
        parts.append(f"parked_reason IS {'NOT ' if wanted.is_parked else ''}NULL")
    return " AND ".join(parts), extra


def after_position(position: PagePosition | None, order: Order) -> tuple[str, list[Any]]:
    """The condition that begins after a position, and its parameters."""
    if position is None:
        return "", []
    sign = "<" if order is Order.NEWEST_FIRST else ">"
    # The first part alone bounds the index scan; the second one breaks ties.
    text = f" AND created_at {sign}= ? AND (created_at {sign} ? OR instance_id {sign} ?)"
    return text, [position.created_at, position.created_at, position.instance_id]


def ordering(order: Order) -> str:
    """The ORDER BY clause."""
    direction = "DESC" if order is Order.NEWEST_FIRST else "ASC"
    return f" ORDER BY created_at {direction}, instance_id {direction}"


def _add_window(wanted: InstanceFilter, parts: list[str], values: list[Any]) -> None:
    if wanted.created_from is not None:
        parts.append("created_at >= ?")
        values.append(wanted.created_from)
    if wanted.created_to is not None:
        parts.append("created_at <= ?" if wanted.created_to_inclusive else "created_at < ?")
        values.append(wanted.created_to)


def _pair(key: str, value: str) -> str:
    return f"{json.dumps(key, ensure_ascii=False)}:{json.dumps(value, ensure_ascii=False)}"


def _escaped(text: str) -> str:
    for character in (_ESCAPE, "%", "_"):
        text = text.replace(character, _ESCAPE + character)
    return text
