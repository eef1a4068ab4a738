"""Settings: the DURABLE_* configuration keys, their defaults and checks, as one frozen value."""

from __future__ import annotations

import difflib
import logging
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from flask_durable.core.ids import MAX_NAME_LENGTH
from flask_durable.errors import ConfigurationError

logger = logging.getLogger("flask_durable.config")

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

    database: Any
    task_hub: str
    worker: bool | None
    management_api: bool
    url_prefix: str
    base_url: str | None
    api_keys: tuple[str, ...]
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
    version: str | None
    max_payload_bytes: int
    max_payload_depth: int
    max_custom_status_bytes: int
    max_actions_per_turn: int
    max_history_events: int
    retry_after: int
    sqlite_synchronous: str
    database_timeout: float
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


def _choice(*allowed: str) -> _Check:
    def check(key: str, value: Any) -> str:
        for option in allowed:
            if isinstance(value, str) and value.casefold() == option.casefold():
                return option
        raise ConfigurationError(key, value, "one of " + ", ".join(repr(option) for option in allowed))

    return check


def _optional_text(key: str, value: Any) -> str | None:
    if value is None or value == "":
        return None
    if isinstance(value, str) and len(value) <= MAX_NAME_LENGTH:
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise ConfigurationError(key, value, f"a text of at most {MAX_NAME_LENGTH} characters, or None")


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


def _api_keys(key: str, value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    keys = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list | tuple | set | frozenset) else None
    if keys is not None and all(isinstance(each, str) and len(each) >= 16 and each.isascii() and each.isprintable() for each in keys):
        return keys
    raise ConfigurationError(key, "<hidden>", "a list of keys, each of at least 16 printable ASCII characters")


def _callable_or_none(key: str, value: Any) -> Any:
    if value is None or callable(value):
        return value
    raise ConfigurationError(key, value, "a function of (permission, instance_id) that returns True or False, or None")


def _database(key: str, value: Any) -> Any:
    if value is None or value == "":
        return None
    if isinstance(value, str):
        scheme = value.partition(":")[0].lower()
        if scheme in ("sqlite", "postgresql", "postgres", "mysql", "mariadb") and "://" in value:
            return value
        raise ConfigurationError(key, mask_url(value), "a URL sqlite:///path, postgresql://… or mysql://…, or a Peewee Database")
    if hasattr(value, "execute_sql"):
        return value
    raise ConfigurationError(key, value, "a URL sqlite:///path, postgresql://… or mysql://…, or a Peewee Database")


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
    "DURABLE_API_KEYS": Option(None, _api_keys, "Keys of which a caller must send one, as `Authorization: Bearer …` or `X-Api-Key`"),
    "DURABLE_AUTHORIZER": Option(
        None, _callable_or_none, "Function of `(permission, instance_id)` that says whether the present request may do that"
    ),
    "DURABLE_ALLOW_ANONYMOUS": Option(
        False, _boolean, "Serve everybody without a key. Only for networks where everybody may do everything; logged at start"
    ),
    "DURABLE_MAX_ACTIVITIES": Option(16, _integer(1, 1000), "Activities that run at the same time in one process (threads)"),
    "DURABLE_CACHE_SIZE": Option(1000, _integer(0, 1_000_000), "Live orchestrations kept in memory; 0 replays the history at every turn"),
    "DURABLE_POLL_INTERVAL": Option(0.25, _seconds(0.01, 60), "Longest pause between two looks for work of other processes, in seconds"),
    "DURABLE_LEASE_SECONDS": Option(15.0, _seconds(1, 3600), "After so many seconds without a sign of life a worker's work is given to others"),
    "DURABLE_SHUTDOWN_GRACE": Option(5.0, _seconds(0, 3600), "Seconds that running activities get when the process stops"),
    "DURABLE_TURN_TIMEOUT": Option(30.0, _seconds(0.1, 3600), "Longest time the code of an orchestrator may run between two yields, in seconds"),
    "DURABLE_MAX_DELIVERIES": Option(5, _integer(1, 1000), "So many processes may die with the same piece of work before its instance is parked"),
    "DURABLE_UNKNOWN_ORCHESTRATOR_TIMEOUT": Option(
        60.0, _seconds(0, 31_536_000), "How long an instance whose orchestrator nobody knows waits before it fails, in seconds"
    ),
    "DURABLE_NONDETERMINISM": Option(
        "fail",
        _choice("fail", "park"),
        "What becomes of an instance whose code no longer fits its history: `fail`, or `park` until the right code is back",
    ),
    "DURABLE_VERSION": Option(None, _optional_text, "Version given to instances that are started without one"),
    "DURABLE_MAX_PAYLOAD_BYTES": Option(1024 * 1024, _integer(1024, 1024**3), "Largest input, output, result or event, in bytes of JSON"),
    "DURABLE_MAX_PAYLOAD_DEPTH": Option(64, _integer(1, 500), "Deepest nesting of lists and objects in a payload"),
    "DURABLE_MAX_CUSTOM_STATUS_BYTES": Option(16 * 1024, _integer(16, 1024**2), "Largest custom status, in bytes of JSON"),
    "DURABLE_MAX_ACTIONS_PER_TURN": Option(100_000, _integer(1, 10_000_000), "Most calls an orchestrator may make without yielding"),
    "DURABLE_MAX_HISTORY_EVENTS": Option(
        1_000_000, _integer(100, 100_000_000), "Longest history of one generation; continue-as-new begins a new one"
    ),
    "DURABLE_RETRY_AFTER": Option(5, _integer(0, 3600), "Seconds in the `Retry-After` header of a start's answer"),
    "DURABLE_SQLITE_SYNCHRONOUS": Option(
        "FULL", _choice("FULL", "NORMAL"), "SQLite durability; `NORMAL` is faster and may lose the last moments at a power cut"
    ),
    "DURABLE_DATABASE_TIMEOUT": Option(
        10.0, _seconds(0.1, 600), "How long a request waits for the database before it is told that it is not available, in seconds"
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
