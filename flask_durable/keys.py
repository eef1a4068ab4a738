"""Keys: the API keys of one app, what each may do, and how they are kept.

A key is kept as a salted SHA-256, and that is enough: keys are long and random, so there is no list of likely ones to try, and a slow hash
would only make every request slow. The salt keeps two entries of one key from looking alike and tables made beforehand from being of use.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

SCHEME = "sha256"
KEY_PREFIX = "fdk_"
"""How the keys made here begin, so that people and secret scanners know one when they see it."""

MIN_KEY_LENGTH = 16
ALLOWED = (
    f"a list of keys, each of at least {MIN_KEY_LENGTH} printable ASCII characters, or of entries "
    "{'name': …, 'hash': 'sha256:<salt>:<hex>', 'permissions': ['read', …]} as `flask durable create-key` prints them, or a dict of such entries by name"
)
NAME_PATTERN = r"[A-Za-z0-9](?:[A-Za-z0-9._@-]{0,62}[A-Za-z0-9])?"
"""What the name of a key may be: it appears in logs."""
_HASH = re.compile(rf"{SCHEME}:((?:[0-9a-f]{{2}}){{8,64}}):([0-9a-f]{{64}})")


class Permission(StrEnum):
    """What an operation needs; keys hold them, and it is the first argument of ``DURABLE_AUTHORIZER``."""

    READ = "read"
    START = "start"
    EVENT = "event"
    CONTROL = "control"
    PURGE = "purge"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One key as it is kept: its hash, and not the key.

    Args:
        name: what logs call it.
        salt: hashed before the key.
        digest: SHA-256 of salt and key.
        permissions: what it may do; everything else is denied.
    """

    name: str
    salt: bytes
    digest: bytes
    permissions: frozenset[Permission]

    def fits(self, key: str) -> bool:
        """Whether that is the key, in a time that does not tell how much of it is right."""
        return hmac.compare_digest(_digest(self.salt, key), self.digest)

    @property
    def hash(self) -> str:
        """The hash as it stands in the configuration."""
        return f"{SCHEME}:{self.salt.hex()}:{self.digest.hex()}"


def make_key() -> str:
    """A new key of 256 random bits."""
    return KEY_PREFIX + secrets.token_urlsafe(32)


def hash_key(name: str, key: str, permissions: Iterable[Permission] = Permission) -> ApiKey:
    """The entry for a key, under a new salt; with all permissions unless told otherwise."""
    salt = secrets.token_bytes(16)
    return ApiKey(name, salt, _digest(salt, key), frozenset(permissions))


def find_key(keys: Iterable[ApiKey], given: Iterable[str]) -> ApiKey | None:
    """The entry that one of the given keys fits; every entry is tried, so that the time does not tell which one it is (S8)."""
    found = None
    for key in given:
        for entry in keys:
            if entry.fits(key):
                found = entry
    return found


def parse_keys(value: Any) -> tuple[ApiKey, ...]:
    """The keys that ``DURABLE_API_KEYS`` holds.

    Raises:
        ValueError: with what is wrong, and no key in it.
    """
    if value is None:
        return ()
    if isinstance(value, str):
        value = [value]
    if isinstance(value, Mapping):
        value = [{"name": name, **_fields(entry)} for name, entry in value.items()]
    if not isinstance(value, list | tuple | set | frozenset):
        raise ValueError("it is no list")
    keys = tuple(_plain(each, index) if isinstance(each, str) else _entry(each, index) for index, each in enumerate(value, 1))
    names = [key.name for key in keys]
    if len(set(names)) < len(names):
        raise ValueError("two entries have the same name")
    return keys


def _plain(key: str, index: int) -> ApiKey:
    if len(key) < MIN_KEY_LENGTH or not key.isascii() or not key.isprintable():
        raise ValueError(f"key {index} is too short or has other characters")
    return hash_key(f"key-{index}", key)


def _entry(value: Any, index: int) -> ApiKey:
    entry = _fields(value)
    name = entry.get("name")
    if not isinstance(name, str) or not re.fullmatch(NAME_PATTERN, name):
        raise ValueError(f"entry {index} has no name of 1 to 64 letters, digits and . _ @ -")
    if set(entry) != {"name", "hash", "permissions"}:
        raise ValueError(f"entry {index} does not have just name, hash and permissions")
    match = _HASH.fullmatch(entry["hash"]) if isinstance(entry["hash"], str) else None
    if match is None:
        raise ValueError(f"the hash of entry {index} is not of the form sha256:<salt>:<hex>")
    return ApiKey(name, bytes.fromhex(match[1]), bytes.fromhex(match[2]), _permissions(entry, index))


def _permissions(entry: Mapping[str, Any], index: int) -> frozenset[Permission]:
    given = entry["permissions"]
    known = [permission.value for permission in Permission]
    if not isinstance(given, list | tuple | set | frozenset) or not given or not all(isinstance(each, str) and each in known for each in given):
        raise ValueError(f"the permissions of entry {index} are not one or more of {', '.join(known)}")
    return frozenset(Permission(each) for each in given)


def _fields(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError("an entry is neither a text nor a dict")
    return value


def _digest(salt: bytes, key: str) -> bytes:
    return hashlib.sha256(salt + key.encode("utf-8", "surrogatepass")).digest()
