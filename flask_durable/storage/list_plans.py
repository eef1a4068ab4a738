"""How a page of a list is read: which index, chosen here, since planners err.

Laws:

1. A page is read in its order from an index that begins with what the filter names, and ends with the page. For several statuses that is one such
   read for each, of which the first rows in order are the page.
2. A condition that an index answers, and that few instances fulfil (it is looked, among so many at most), is read first, and sorted.
3. What is left over is looked up row by row, as far as the index of the read does not hold it.

A planner that is left alone takes rare for frequent, or the reverse, as soon as names or statuses go with times; what it then reads is the hub. MySQL,
MariaDB and SQLite are told the index; PostgreSQL has no such hints, and takes it because nothing else is as cheap, given its statistics.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from flask_durable.core.status import FINAL_STATUSES
from flask_durable.storage.database import Sql
from flask_durable.storage.interface import InstanceFilter, Order, PagePosition
from flask_durable.storage.search import after_position, conditions, order_column, ordering

FEW = 1000
"""So many instances are read and sorted instead of walking along an order."""

_LIST_LENGTHS = (8, 64, 1000)
"""Lists of ids have few different lengths, so that statements are prepared once."""

_TABLE = "durable_instance"
_BY_CREATION = "hub_created_at_instance_id"
_BY_STATUS = "hub_status_created_at_instance_id"
_BY_NAME = "hub_name_created_at_instance_id"
_BY_NAME_AND_STATUS = "hub_name_status_created_at_instance_id"
_BY_PARENT = "hub_parent_instance_id_created_at_instance_id"
_BY_VERSION = "version"
_BY_COMPLETION = "completed"
_PARKED = "parked"
_KEY = None


@dataclass(frozen=True, slots=True)
class _Part:
    """The part of a filter that one index answers."""

    index: str | None
    filter: InstanceFilter


class ListPlans:
    """Statements for pages of the instances of one task hub."""

    def __init__(self, sql: Sql, hub: str) -> None:
        self._sql = sql
        self._hub = hub

    def rows(self, columns: str, wanted: InstanceFilter, limit: int, after: PagePosition | None, order: Order) -> list[tuple[Any, ...]]:
        """The columns of the first so many that a filter means, after a position."""
        if wanted.statuses and not any(status.is_final for status in wanted.statuses) and (order.is_by_completion or _completed(wanted)):
            return []  # none of them has ended
        index = _walk(wanted, order)
        ids = next((ids for part in _parts(wanted, order, index) if (ids := self._few(part)) is not None), None)
        if ids == []:
            return []
        if ids is not None:
            return self._sql.rows(*self._of_few(ids, columns, wanted, limit, after, order))
        statuses = tuple(dict.fromkeys(wanted.statuses))
        if index in (_BY_STATUS, _BY_NAME_AND_STATUS) and len(statuses) > 1:
            branches = [replace(wanted, statuses=(status,)) for status in statuses]
            return self._sql.rows(*self._merged(index, columns, branches, limit, after, order))
        if _holds_more(index, wanted):
            return self._sql.rows(*self._merged(index, columns, [wanted], limit, after, order))
        return self._sql.rows(*self._walked(index, columns, wanted, limit, after, order))

    def source_of(self, wanted: InstanceFilter) -> str:
        """The table, to be read by the index that fits a filter best."""
        return self._source(_walk(wanted, Order.NEWEST_FIRST))

    def _walked(
        self, index: str, columns: str, wanted: InstanceFilter, limit: int, after: PagePosition | None, order: Order
    ) -> tuple[str, list[Any]]:
        where, values = conditions(self._sql, self._hub, wanted)
        begin, position = after_position(after, order)
        first = "parent_instance_id" if index == _BY_PARENT and wanted.is_root and self._sql.is_postgresql else ""
        ordered = ordering(order, first)
        return f"SELECT {columns} FROM {self._source(index)} WHERE {where}{begin}{ordered} LIMIT ?", [*values, *position, limit]

    def _merged(
        self, index: str, columns: str, branches: Sequence[InstanceFilter], limit: int, after: PagePosition | None, order: Order
    ) -> tuple[str, list[Any]]:
        """The ids come from the index alone, wherever it holds what is asked for; then only the rows of the page are read."""
        moment = order_column(order)
        texts, values = [], []
        for number, branch in enumerate(branches):
            text, some = self._walked(index, f"instance_id AS chosen, {moment} AS moment", branch, limit, after, order)
            texts.append(f"SELECT chosen, moment FROM ({text}) AS branch{number}")
            values += some
        direction = "DESC" if order.is_descending else "ASC"
        chosen = f"{' UNION ALL '.join(texts)} ORDER BY moment {direction}, chosen {direction} LIMIT ?"
        # The page first: it tells which rows are wanted
        join = "CROSS JOIN" if self._sql.is_sqlite else "JOIN" if self._sql.is_postgresql else "STRAIGHT_JOIN"
        joined = f"SELECT {columns} FROM ({chosen}) AS page {join} {_TABLE} ON hub = ? AND instance_id = chosen"
        return f"{joined} ORDER BY moment {direction}, chosen {direction}", [*values, limit, self._hub]

    def _of_few(
        self, ids: Sequence[str], columns: str, wanted: InstanceFilter, limit: int, after: PagePosition | None, order: Order
    ) -> tuple[str, list[Any]]:
        where, values = conditions(self._sql, self._hub, wanted)
        begin, position = after_position(after, order)
        length = next(size for size in _LIST_LENGTHS if size >= len(ids))
        marks = ", ".join("?" * length)
        text = f"SELECT {columns} FROM {self._source(_KEY)} WHERE {where} AND instance_id IN ({marks}){begin}{ordering(order)} LIMIT ?"
        return text, [*values, *ids, *[ids[-1]] * (length - len(ids)), *position, limit]

    def _few(self, part: _Part) -> list[str] | None:
        """The ids that fulfil a part of the filter; None when there are many."""
        where, values = conditions(self._sql, self._hub, part.filter)
        rows = self._sql.rows(f"SELECT instance_id FROM {self._source(part.index)} WHERE {where} LIMIT ?", [*values, FEW + 1])
        return None if len(rows) > FEW else [str(row[0]) for row in rows]

    def _source(self, index: str | None) -> str:
        if self._sql.is_postgresql:
            return _TABLE
        if self._sql.is_sqlite:
            return f"{_TABLE} INDEXED BY {f'sqlite_autoindex_{_TABLE}_1' if index is None else f'{_TABLE}_{index}'}"
        return f"{_TABLE} FORCE INDEX ({'PRIMARY' if index is None else f'{_TABLE}_{index}'})"


def _walk(wanted: InstanceFilter, order: Order) -> str:
    """The index along which a page is read in its order."""
    if order.is_by_completion:
        return _BY_COMPLETION
    if wanted.parent_instance_id is not None:
        return _BY_PARENT
    if wanted.name is not None:
        return _BY_NAME_AND_STATUS if wanted.statuses else _BY_NAME
    if wanted.statuses:
        return _BY_STATUS
    if wanted.version is not None:
        return _BY_VERSION
    return _BY_PARENT if wanted.is_root else _BY_CREATION


def _holds_more(index: str, wanted: InstanceFilter) -> bool:
    """Whether the index tells more than where it begins; databases use that only when they need nothing else of the row."""
    if index != _BY_COMPLETION:
        return bool(wanted.id_prefix)
    return bool(wanted.id_prefix or wanted.statuses) or wanted.name is not None or _created(wanted) is not None


def _parts(wanted: InstanceFilter, order: Order, walked: str) -> Iterator[_Part]:
    """The parts of a filter by which few might be found, without those by which the walk goes."""
    if wanted.is_parked:
        yield _Part(_PARKED, InstanceFilter(is_parked=True))
    if wanted.id_prefix:
        yield _Part(_KEY, InstanceFilter(id_prefix=wanted.id_prefix))
    if walked != _BY_PARENT and wanted.parent_instance_id is not None:
        yield _Part(_BY_PARENT, InstanceFilter(parent_instance_id=wanted.parent_instance_id))
    if wanted.is_root is False:
        yield _Part(_BY_PARENT, InstanceFilter(is_root=False))
    if walked != _BY_VERSION and (wanted.version is not None or wanted.has_version):
        yield _Part(_BY_VERSION, InstanceFilter(version=wanted.version, has_version=True))
    yield from _named(wanted, order, walked)
    window = _created(wanted) if order.is_by_completion else _completed(wanted)
    if window is not None:
        yield _Part(_BY_CREATION if order.is_by_completion else _BY_COMPLETION, window)


def _named(wanted: InstanceFilter, order: Order, walked: str) -> Iterator[_Part]:
    if walked in (_BY_NAME, _BY_NAME_AND_STATUS, _BY_STATUS):
        return
    statuses = wanted.statuses
    if order.is_by_completion:
        statuses = tuple(status for status in statuses or FINAL_STATUSES if status.is_final) or statuses
    if wanted.name is not None:
        yield _Part(_BY_NAME_AND_STATUS if statuses else _BY_NAME, InstanceFilter(name=wanted.name, statuses=statuses))
    elif wanted.statuses:
        yield _Part(_BY_STATUS, InstanceFilter(statuses=statuses))


def _created(wanted: InstanceFilter) -> InstanceFilter | None:
    """The part of a filter that is a window of creation."""
    if wanted.created_from is None and wanted.created_to is None:
        return None
    return InstanceFilter(created_from=wanted.created_from, created_to=wanted.created_to, created_to_inclusive=wanted.created_to_inclusive)


def _completed(wanted: InstanceFilter) -> InstanceFilter | None:
    """The part of a filter that is a window of completion."""
    if wanted.completed_from is None and wanted.completed_to is None:
        return None
    return InstanceFilter(completed_from=wanted.completed_from, completed_to=wanted.completed_to, created_to_inclusive=wanted.created_to_inclusive)
