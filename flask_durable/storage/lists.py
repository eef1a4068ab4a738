"""Lists: pages of instances and of ids, counts, and which versions are in use; reading only."""

from __future__ import annotations

from flask_durable.core.status import LIVE_STATUSES, RuntimeStatus
from flask_durable.storage.database import Sql
from flask_durable.storage.interface import IdPage, InstanceFilter, InstancePage, Order, PagePosition, VersionUse
from flask_durable.storage.list_plans import ListPlans
from flask_durable.storage.rows import INSTANCE_COLUMNS, shown_record
from flask_durable.storage.search import conditions, order_column


class Lists:
    """Lists of the instances of one task hub."""

    def __init__(self, sql: Sql, hub: str) -> None:
        self._sql = sql
        self._hub = hub
        self._plans = ListPlans(sql, hub)

    def page(
        self, wanted: InstanceFilter, limit: int, after: PagePosition | None, order: Order, *, with_input: bool, with_output: bool
    ) -> InstancePage:
        """One page of a list; payloads that are not asked for stay on their disk pages."""
        left_out = {column for column, is_wanted in (("input", with_input), ("output", with_output)) if not is_wanted}
        columns = ", ".join("NULL" if column in left_out else column for column in INSTANCE_COLUMNS.split(", "))
        rows = self._plans.rows(columns, wanted, limit + 1, after, order)
        records = tuple(shown_record(row) for row in rows[:limit])
        if len(rows) <= limit:
            return InstancePage(records, None)
        last = records[-1]
        at = last.completed_at if order.is_by_completion else last.created_at
        return InstancePage(records, PagePosition(at or 0, last.instance_id))

    def ids(self, wanted: InstanceFilter, limit: int, after: PagePosition | None, order: Order) -> IdPage:
        """One page of ids."""
        moment = order_column(order)
        rows = self._plans.rows(f"instance_id, {moment}", wanted, limit + 1, after, order)
        ids = tuple(str(row[0]) for row in rows[:limit])
        return IdPage(ids, PagePosition(int(rows[limit - 1][1]), ids[-1]) if len(rows) > limit else None)

    def count(self, wanted: InstanceFilter) -> int:
        """How many instances a filter means."""
        where, parameters = conditions(self._sql, self._hub, wanted)
        return int(self._sql.value(f"SELECT COUNT(*) FROM durable_instance WHERE {where}", parameters))

    def version_use(self, name: str | None) -> list[VersionUse]:
        """How many live instances have which version; in order of names and versions."""
        wanted = InstanceFilter(statuses=tuple(sorted(LIVE_STATUSES)), name=name)
        where, parameters = conditions(self._sql, self._hub, wanted)
        text = (
            f"SELECT name, version_key, version, status, COUNT(*) FROM {self._plans.source_of(wanted)} WHERE {where}"
            " GROUP BY name, version_key, version, status ORDER BY name, version_key, version, status"
        )
        found: dict[tuple[str, str | None], dict[RuntimeStatus, int]] = {}
        for of_name, _, version, status, count in self._sql.rows(text, parameters):
            found.setdefault((of_name, version), {})[RuntimeStatus(status)] = int(count)
        return [VersionUse(*key, counts) for key, counts in found.items()]
