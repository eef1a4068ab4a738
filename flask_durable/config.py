"""Settings: the DURABLE_* configuration keys, their defaults and checks, as one frozen value."""

from __future__ import annotations

import difflib
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from flask_durable.core.ids import MAX_VERSION_LENGTH, check_name, check_version
from flask_durable.core.status import FINAL_STATUSES, RuntimeStatus, parse_status
from flask_durable.core.times import Micros
from flask_durable.core.versions import VersionMatch
from flask_durable.errors import ConfigurationError, InvalidArgumentError
from flask_durable.keys import ALLOWED as ALLOWED_KEYS
from flask_durable.keys import ApiKey, parse_keys
from flask_durable.logs import get_logger

logger = get_logger("flask_durable.config")

_Check = Callable[[str, Any], Any]


@dataclass(frozen=True, slots=True)
class Option:
    """One configuration key: its default, its check, and what it is for."""

    default: Any
    check: _Check
    text: str


@dataclass(frozen=True, slots=True)
class Settings:
    """The checked configuration of one app; a field is named as its key, without ``DURABLE_`` and in lower case."""

    database: Any = field(repr=False)
    task_hub: str
    worker: bool | None
    management_api: bool
    url_prefix: str
    base_url: str | None
    api_keys: tuple[ApiKey, ...]
    authorizer: Callable[..., bool] | None
    allow_anonymous: bool
    max_activities: int
    cache_size: int
    poll_interval: float
    lease_seconds: float
    shutdown_grace: float
    turn_timeout: float
    max_deliveries: int
    unknown_orchestrator_timeout: float
    nondeterminism: str
    retention: Mapping[RuntimeStatus, Micros]
    version: str | None
    version_match: str
    version_failure: str
    worker_orchestrations: tuple[str, ...] | None
    worker_activities: tuple[str, ...] | None
    max_payload_bytes: int
    max_payload_depth: int
    max_custom_status_bytes: int
    max_actions_per_turn: int
    max_history_events: int
    max_waiting_requests: int
    max_timer_interval: float | None
    retry_after: int
    sqlite_synchronous: str
    database_timeout: float
    max_connections: int
    database_sessions: str
    otel: str


def _boolean(key: str, value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in ("true", "false", "1", "0", "yes", "no", "on", "off"):
        return value.strip().lower() in ("true", "1", "yes", "on")
    raise ConfigurationError(key, value, "True or False")


def _optional_boolean(key: str, value: Any) -> bool | None:
    return None if value is None else _boolean(key, value)


def _integer(least: int, most: int) -> _Check:
    def check(key: str, value: Any) -> int:
        if isinstance(value, str) and value.strip().lstrip("-").isdigit():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise ConfigurationError(key, value, f"a whole number from {least} to {most}")
        return value

    return check


def _seconds(least: float, most: float) -> _Check:
    def check(key: str, value: Any) -> float:
        allowed = f"a number of seconds from {least:g} to {most:g}"
        if isinstance(value, str):
            try:
                value = float(value)
            except ValueError:
                raise ConfigurationError(key, value, allowed) from None
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            raise ConfigurationError(key, value, allowed)
        return float(value)

    return check


def _optional_seconds(least: float, most: float) -> _Check:
    check = _seconds(least, most)
    return lambda key, value: None if value is None or value == "" else check(key, value)


def _choice(*allowed: str) -> _Check:
    def check(key: str, value: Any) -> str:
        for option in allowed:
            if isinstance(value, str) and value.casefold() == option.casefold():
                return option
        raise ConfigurationError(key, value, "one of " + ", ".join(repr(option) for option in allowed))

    return check


def _version(key: str, value: Any) -> str | None:
    if value is None or value == "":
        return None
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    try:
        return check_version(value)
    except InvalidArgumentError:
        raise ConfigurationError(key, value, f"a text of at most {MAX_VERSION_LENGTH} characters without control characters, or None") from None


def _names(kind: str) -> _Check:
    def check(key: str, value: Any) -> tuple[str, ...] | None:
        if value is None or value == "":
            return None
        names = value.split(",") if isinstance(value, str) else value
        try:
            if isinstance(names, list | tuple | set | frozenset):
                return tuple(sorted({check_name(kind, name.strip() if isinstance(name, str) else name) for name in names}))
        except InvalidArgumentError as error:
            raise ConfigurationError(key, value, f"names: {error}") from None
        raise ConfigurationError(key, value, "a list of names, a text with commas between them, or None for all")

    return check


def _hub(key: str, value: Any) -> str:
    if isinstance(value, str) and 1 <= len(value) <= 64 and value.replace("-", "").replace("_", "").isalnum() and value.isascii():
        return value
    raise ConfigurationError(key, value, "1 to 64 letters, digits, '-' and '_'")


def _prefix(key: str, value: Any) -> str:
    if isinstance(value, str) and value.startswith("/") and len(value) > 1 and not value.endswith("/") and not set(value) & set("<>?# "):
        return value
    raise ConfigurationError(key, value, "a path that begins with '/' and does not end with one, for example '/runtime/orchestrations'")


def _base_url(key: str, value: Any) -> str | None:
    if value is None or value == "":
        return None
    if isinstance(value, str):
        parts = urllib.parse.urlsplit(value)
        if parts.scheme in ("http", "https") and parts.netloc and not parts.query and not parts.fragment:
            return value.rstrip("/")
    raise ConfigurationError(key, value, "an absolute http or https URL without query, for example 'https://your-app', or None")


def _api_keys(key: str, value: Any) -> tuple[ApiKey, ...]:
    try:
        return parse_keys(value)
    except ValueError as error:
        raise ConfigurationError(key, "<hidden>", f"{ALLOWED_KEYS}; {error}") from None


def _retention(key: str, value: Any) -> Mapping[RuntimeStatus, Micros]:
    if value is None or value == "":
        return {}
    if not isinstance(value, Mapping):
        return dict.fromkeys(sorted(FINAL_STATUSES), _age(key, value, value))
    ages = {}
    for name, age in value.items():
        status = parse_status(name) if isinstance(name, str) else None
        if status not in FINAL_STATUSES or status in ages:
            raise ConfigurationError(key, value, f"a dict whose keys are among {', '.join(sorted(FINAL_STATUSES))}")
        if age is not None:
            ages[status] = _age(key, value, age)
    return ages


def _age(key: str, shown: Any, value: Any) -> Micros:
    try:
        age = value if isinstance(value, timedelta) else timedelta(days=float(value)) if not isinstance(value, bool) else timedelta(0)
    except (TypeError, ValueError, OverflowError):
        age = timedelta(0)
    if not timedelta(0) < age <= timedelta(days=36500):
        raise ConfigurationError(key, shown, "None, more than 0 and at most 36500 days, as a number or timedelta, or a dict of such ages by status")
    return age // timedelta(microseconds=1)


def _callable_or_none(key: str, value: Any) -> Any:
    if value is None or callable(value):
        return value
    raise ConfigurationError(key, value, "a function of (permission, instance_id) that returns True or False, or None")


def _database(key: str, value: Any) -> Any:
    if value is None or value == "":
        return None
    if isinstance(value, str):
        scheme = value.partition(":")[0].lower()
        if scheme in ("sqlite", "postgresql", "postgres", "mysql", "mariadb") and "://" in value and _is_url(value):
            return value
        raise ConfigurationError(key, mask_url(value), "a URL sqlite:///path, postgresql://… or mysql://…, or a Peewee Database")
    if hasattr(value, "execute_sql"):
        return value
    raise ConfigurationError(key, value, "a URL sqlite:///path, postgresql://… or mysql://…, or a Peewee Database")


def _is_url(text: str) -> bool:
    try:
        parts = urllib.parse.urlsplit(text)
        return parts.port is None or parts.port > 0
    except ValueError:
        return False


OPTIONS: dict[str, Option] = {
    "DURABLE_DATABASE": Option(
        None,
        _database,
        "Where the state is kept: a URL `sqlite:///path`, `postgresql://…`, `mysql://…`, or a Peewee `Database` of the app's own. Default: `durable.db` in the app's instance folder",
    ),
    "DURABLE_TASK_HUB": Option("default", _hub, "Name of the set of instances; apps with different hubs share a database without seeing each other"),
    "DURABLE_WORKER": Option(None, _optional_boolean, "Whether serving processes run orchestrations. Default: yes, but not when `TESTING` is set"),
    "DURABLE_MANAGEMENT_API": Option(True, _boolean, "Whether the HTTP endpoints, the OpenAPI document and Swagger UI are served"),
    "DURABLE_URL_PREFIX": Option("/runtime/orchestrations", _prefix, "Path under which the HTTP endpoints live"),
    "DURABLE_BASE_URL": Option(None, _base_url, "Scheme, host and mount path used in generated links. Default: those of the request"),
    "DURABLE_API_KEYS": Option(
        None,
        _api_keys,
        "Keys of which a caller must send one, as `Authorization: Bearer …` or `X-Api-Key`: texts that may do everything, or entries with name, hash and permissions",
    ),
    "DURABLE_AUTHORIZER": Option(
        None, _callable_or_none, "Function of `(permission, instance_id)` that says whether the present request may do that"
    ),
    "DURABLE_ALLOW_ANONYMOUS": Option(
        False, _boolean, "Serve everybody without a key. Only for networks where everybody may do everything; logged at start"
    ),
    "DURABLE_MAX_ACTIVITIES": Option(16, _integer(1, 1000), "Activities that run at the same time in one process (threads)"),
    "DURABLE_CACHE_SIZE": Option(1000, _integer(0, 1_000_000), "Live orchestrations kept in memory; 0 replays the history at every turn"),
    "DURABLE_POLL_INTERVAL": Option(
        0.25,
        _seconds(0.01, 60),
        "Longest pause between two looks for work of other processes while there is work now and then, in seconds; when all is quiet, looks are rarer",
    ),
    "DURABLE_LEASE_SECONDS": Option(15.0, _seconds(1, 3600), "After so many seconds without a sign of life a worker's work is given to others"),
    "DURABLE_SHUTDOWN_GRACE": Option(5.0, _seconds(0, 3600), "Seconds that running activities get when the process stops"),
    "DURABLE_TURN_TIMEOUT": Option(10.0, _seconds(0.1, 3600), "Longest time the code of an orchestrator may run between two yields, in seconds"),
    "DURABLE_MAX_DELIVERIES": Option(5, _integer(1, 1000), "So many processes may die with the same piece of work before its instance is parked"),
    "DURABLE_UNKNOWN_ORCHESTRATOR_TIMEOUT": Option(
        60.0, _seconds(0, 31_536_000), "How long an instance whose orchestrator nobody knows waits before it fails, in seconds"
    ),
    "DURABLE_NONDETERMINISM": Option(
        "fail",
        _choice("fail", "park"),
        "What becomes of an instance whose code no longer fits its history: `fail`, or `park` until the right code is back",
    ),
    "DURABLE_RETENTION": Option(
        None,
        _retention,
        "How long an ended instance is kept, as days or a `timedelta`, or a dict of them by status, for example `{'Completed': 7, 'Failed': 30}`; then a worker deletes it. Default: for ever",
    ),
    "DURABLE_VERSION": Option(None, _version, "Version of this app: given to instances that are started without one, and compared by its workers"),
    "DURABLE_VERSION_MATCH": Option(
        VersionMatch.CURRENT_OR_OLDER.value,
        _choice(*(match.value for match in VersionMatch)),
        "Which instances a worker takes, by version: `currentOrOlder` those not above `DURABLE_VERSION` (all, if that is not set), "
        "`strict` only those with exactly that version, `none` all",
    ),
    "DURABLE_VERSION_FAILURE": Option(
        "reject", _choice("reject", "fail"), "What becomes of an instance of another version: `reject` leaves it to other workers, `fail` fails it"
    ),
    "DURABLE_WORKER_ORCHESTRATIONS": Option(
        None, _names("orchestrator"), "Names of the orchestrators that workers run, as a list or with commas; `[]` for none. Default: all"
    ),
    "DURABLE_WORKER_ACTIVITIES": Option(
        None, _names("activity"), "Names of the activities that workers run, as a list or with commas; `[]` for none. Default: all"
    ),
    "DURABLE_MAX_PAYLOAD_BYTES": Option(1024 * 1024, _integer(1024, 1024**3), "Largest input, output, result or event, in bytes of JSON"),
    "DURABLE_MAX_PAYLOAD_DEPTH": Option(64, _integer(1, 500), "Deepest nesting of lists and objects in a payload"),
    "DURABLE_MAX_CUSTOM_STATUS_BYTES": Option(16 * 1024, _integer(16, 1024**2), "Largest custom status, in bytes of JSON"),
    "DURABLE_MAX_ACTIONS_PER_TURN": Option(100_000, _integer(1, 10_000_000), "Most calls an orchestrator may make without yielding"),
    "DURABLE_MAX_HISTORY_EVENTS": Option(
        1_000_000, _integer(100, 100_000_000), "Longest history of one generation; continue-as-new begins a new one"
    ),
    "DURABLE_MAX_WAITING_REQUESTS": Option(
        16, _integer(0, 100_000), "Requests of one process that may wait at the same time for the end of what they started; more are answered 429"
    ),
    "DURABLE_MAX_TIMER_INTERVAL": Option(
        None,
        _optional_seconds(0.01, 31_536_000),
        "Longest stage of a timer, in seconds: a longer one wakes its instance at the end of each stage. None: every timer is one stage",
    ),
    "DURABLE_RETRY_AFTER": Option(5, _integer(0, 3600), "Seconds in the `Retry-After` header of a start's answer"),
    "DURABLE_SQLITE_SYNCHRONOUS": Option(
        "FULL", _choice("FULL", "NORMAL"), "SQLite durability; `NORMAL` is faster and may lose the last moments at a power cut"
    ),
    "DURABLE_DATABASE_TIMEOUT": Option(
        10.0, _seconds(0.1, 600), "How long a request waits for the database before it is told that it is not available, in seconds"
    ),
    "DURABLE_MAX_CONNECTIONS": Option(
        12,
        _integer(5, 1000),
        "Connections to a database server that one process opens at most: four for its worker, the others for requests and activities. "
        "Not for SQLite, nor for a `Database` of the app's own",
    ),
    "DURABLE_DATABASE_SESSIONS": Option(
        "auto",
        _choice("auto", "on", "off"),
        "Whether the sessions of a database server are the process's own: `off` behind a pooler in transaction mode, which `auto` notices",
    ),
    "DURABLE_OTEL": Option(
        "api",
        _choice("api", "instrument", "off"),
        "OpenTelemetry: `api` uses what the app has set up, `instrument` also instruments the app, `off` makes no spans",
    ),
}
"""All keys; docs/configuration.md shows this table, and a test compares the two."""


def load_settings(config: Mapping[str, Any]) -> Settings:
    """Check an app's configuration.

    Raises:
        ConfigurationError: naming the key, the value and what is allowed.
    """
    _warn_of_unknown(config)
    values: dict[str, Any] = {}
    for key, option in OPTIONS.items():
        value = config.get(key, option.default)
        values[key.removeprefix("DURABLE_").lower()] = option.check(key, value)
    if values["api_keys"] and values["allow_anonymous"]:
        raise ConfigurationError("DURABLE_ALLOW_ANONYMOUS", True, "False while DURABLE_API_KEYS is set")
    return Settings(**values)


def mask_url(url: str) -> str:
    """The URL without its password, for messages and logs."""
    try:
        parts = urllib.parse.urlsplit(url)
    except ValueError:
        return "<unreadable URL>"
    if "@" not in parts.netloc:
        return url if not parts.query else url.partition("?")[0] + "?…"
    user = parts.netloc.rpartition("@")[0].partition(":")[0]
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{user}:***@{host}{parts.path}"


def _warn_of_unknown(config: Mapping[str, Any]) -> None:
    for key in config:
        if key.startswith("DURABLE_") and key not in OPTIONS and not key.startswith("DURABLE_TEST_"):
            near = difflib.get_close_matches(key, OPTIONS, n=1)
            logger.warning("Unknown configuration key %s is ignored%s", key, f"; did you mean {near[0]}?" if near else "")
