"""Which instance ids, names and event names are allowed, and how ids are derived."""

from __future__ import annotations

import hashlib
import uuid

from flask_durable.errors import InvalidArgumentError

MAX_ID_LENGTH = 100
MAX_NAME_LENGTH = 200
MAX_VERSION_LENGTH = 100
MAX_DEDUP_KEY_LENGTH = 200
RESERVED_IDS = frozenset({"start", "openapi.json", "docs", "versions"})
"""Static path segments of the management API: an instance with such an id could not be reached there."""

_FORBIDDEN = frozenset("/\\#?")
_NAMESPACE = uuid.UUID("8f9c3b5e-0c6f-5d0e-9a55-3f1d8b6c7a42")


def check_instance_id(instance_id: object) -> str:
    """Return the id when it is allowed.

    Raises:
        InvalidArgumentError: naming what is wrong and what is allowed.
    """
    if not isinstance(instance_id, str):
        raise InvalidArgumentError(f"An instance id is a string, not {type(instance_id).__name__}")
    if not 1 <= len(instance_id) <= MAX_ID_LENGTH:
        raise InvalidArgumentError(f"An instance id has 1 to {MAX_ID_LENGTH} characters, this one has {len(instance_id)}")
    if instance_id.startswith("@"):
        raise InvalidArgumentError(f"The instance id {instance_id!r} begins with '@', which is reserved for entities")
    if instance_id in (".", ".."):
        raise InvalidArgumentError(f"The instance id {instance_id!r} is a relative path, which no URL can carry")
    if instance_id.casefold() in RESERVED_IDS:
        raise InvalidArgumentError(f"The instance id {instance_id!r} is a reserved word of the management API ({', '.join(sorted(RESERVED_IDS))})")
    if instance_id != instance_id.strip():
        raise InvalidArgumentError(f"The instance id {instance_id!r} begins or ends with white space")
    _check_characters("instance id", instance_id)
    return instance_id


def check_name(kind: str, name: object) -> str:
    """Return the name of an orchestrator, activity or event when it is allowed.

    Raises:
        InvalidArgumentError: naming what is wrong and what is allowed.
    """
    if not isinstance(name, str):
        raise InvalidArgumentError(f"The name of an {kind} is a string, not {type(name).__name__}")
    if not name.strip() or len(name) > MAX_NAME_LENGTH:
        raise InvalidArgumentError(f"The name of an {kind} has 1 to {MAX_NAME_LENGTH} characters that are not all blank; got {name[:40]!r}")
    if name.startswith("@"):
        raise InvalidArgumentError(f"The {kind} name {name!r} begins with '@', which is reserved for entities")
    _check_characters(f"{kind} name", name)
    return name


def check_version(version: object) -> str:
    """Return the version of an instance when it is allowed.

    Raises:
        InvalidArgumentError: it is no short text.
    """
    if not isinstance(version, str) or not 1 <= len(version) <= MAX_VERSION_LENGTH:
        raise InvalidArgumentError(f"A version is a text of 1 to {MAX_VERSION_LENGTH} characters, not {version!r:.100}")
    _check_characters("version", version, forbidden=frozenset())
    return version


def check_dedup_key(key: object) -> str:
    """Return the de-duplication key of an event when it is allowed (rule 23).

    Raises:
        InvalidArgumentError: it is no short text.
    """
    if not isinstance(key, str) or not key.strip() or len(key) > MAX_DEDUP_KEY_LENGTH:
        raise InvalidArgumentError(
            f"A de-duplication key is a text of 1 to {MAX_DEDUP_KEY_LENGTH} characters that are not all blank, not {key!r:.100}"
        )
    _check_characters("de-duplication key", key, forbidden=frozenset())
    return key


def own_name(function_or_name: object) -> str:
    """The name of a function where no registry knows better."""
    return function_or_name if isinstance(function_or_name, str) else str(getattr(function_or_name, "__name__", function_or_name))


def _check_characters(what: str, text: str, *, forbidden: frozenset[str] = _FORBIDDEN) -> None:
    for character in text:
        code = ord(character)
        if code < 0x20 or 0x7F <= code <= 0x9F or character in forbidden:
            raise InvalidArgumentError(f"The {what} {text!r} contains {character!r}; control characters and / \\ # ? are not allowed")
        if 0xD800 <= code <= 0xDFFF:
            raise InvalidArgumentError(f"The {what} {text!r} contains a lone surrogate")


def derived_uuid(execution_id: str, counter: int) -> uuid.UUID:
    """The counter-th UUID of one execution: the same in each replay, different in each generation (rule 4)."""
    return uuid.uuid5(_NAMESPACE, f"{execution_id}/uuid/{counter}")


def next_execution_id(execution_id: str) -> str:
    """The execution id of the generation that follows."""
    return uuid.uuid5(_NAMESPACE, f"{execution_id}/next").hex


def repeated_execution_id(execution_id: str, counter: int) -> str:
    """The execution id of a child that is run from the beginning again, at that point of its parent's history."""
    return uuid.uuid5(_NAMESPACE, f"{execution_id}/again/{counter}").hex


def child_execution_id(execution_id: str, task_id: int) -> str:
    """The execution id of a child, so that its creation can be repeated without making two."""
    return uuid.uuid5(_NAMESPACE, f"{execution_id}/child/{task_id}").hex


def child_instance_id(parent_id: str, execution_id: str, task_id: int) -> str:
    """An id for a child that was given none: unique over generations and restarts of the parent (rule 40).

    Parents of parents make ids longer and longer; past the limit the beginning is replaced by its hash. So much of the execution id is taken
    that the many generations of one eternal parent do not meet by chance.
    """
    suffix = f":{execution_id[:16]}:{task_id}"
    if len(parent_id) + len(suffix) > MAX_ID_LENGTH:
        parent_id = hashlib.sha256(parent_id.encode()).hexdigest()[:40]
    return parent_id + suffix
