"""Access: who may use the management API, decided on plain values.

Law: closed by default. Without keys, an authorizer or the explicit permission for everybody, only a program on the same machine that talks
to the server directly is served.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
import urllib.parse
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from flask_durable.keys import ApiKey, Permission, find_key, parse_keys

__all__ = [
    "Authorizer",
    "Caller",
    "Permission",
    "Policy",
    "Refusal",
    "admit",
    "authorize",
    "is_cross_site",
    "is_direct_local",
    "is_loopback_host",
    "key_of",
    "make_policy",
]

Authorizer = Callable[..., bool]


@dataclass(frozen=True, slots=True)
class Caller:
    """A request, as far as access depends on it.

    Args:
        peer: address of the other end of the connection, before any middleware replaced it.
        host: the ``Host`` header, before any middleware replaced it.
        method: the HTTP method.
        headers: all headers, names in lower case.
        protocol: version of HTTP.
    """

    peer: str | None
    host: str | None
    method: str
    headers: Mapping[str, str]
    protocol: str = "HTTP/1.1"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is not served: HTTP status, stable code, a sentence, and headers for the answer."""

    status: int
    code: str
    message: str
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Policy:
    """The rules of one app.

    Args:
        keys: the API keys, as hashes; the keys themselves are not kept.
        authorizer: the app's own decision, None when it has none.
        is_open: whether everybody is served.
    """

    keys: tuple[ApiKey, ...]
    authorizer: Authorizer | None
    is_open: bool

    @property
    def is_local_only(self) -> bool:
        """Whether only direct requests from this machine are served."""
        return not (self.keys or self.authorizer or self.is_open)


def make_policy(api_keys: Iterable[ApiKey | str], authorizer: Authorizer | None, *, is_open: bool) -> Policy:
    """The policy for these keys (a text is a key that may do everything), this authorizer, and whether everybody is served."""
    given = list(api_keys)
    plain = iter(parse_keys([each for each in given if isinstance(each, str)]))
    return Policy(tuple(each if isinstance(each, ApiKey) else next(plain) for each in given), authorizer, is_open)


def admit(policy: Policy, caller: Caller, *, accepts_basic: bool = False) -> Refusal | None:
    """Whether a request is served at all, whatever it asks for; None when it is.

    Args:
        policy: the rules of the app.
        caller: the request.
        accepts_basic: take a key as the password of HTTP Basic too. Only for pages: a browser repeats Basic credentials by itself, also
            when another site makes it write, and has no other way to send a key when somebody opens a page.
    """
    if policy.keys:
        return _check_key(policy, caller, accepts_basic)
    if policy.is_local_only and not is_direct_local(caller):
        return _NOT_LOCAL
    if caller.method not in _SAFE_METHODS and is_cross_site(caller, trusts_fetch_metadata=not policy.is_local_only):
        return _CROSS_SITE
    return None


def key_of(policy: Policy, caller: Caller, *, accepts_basic: bool = False) -> ApiKey | None:
    """The key that a request came with, when it is a valid one; see :func:`admit`."""
    return find_key(policy.keys, _given_keys(caller.headers, accepts_basic)) if policy.keys else None


def authorize(policy: Policy, permission: Permission, instance_id: str | None, key: ApiKey | None = None) -> Refusal | None:
    """Whether the caller's key holds the permission and the app's authorizer agrees; None when they do.

    Args:
        policy: the rules of the app.
        permission: what the operation needs.
        instance_id: the instance that it is about, None when it is about many or a new one.
        key: the key that the request came with.

    Raises:
        TypeError: the authorizer answered with something else than True, False or None.
    """
    if policy.keys and (key is None or permission not in key.permissions):
        return Refusal(403, "forbidden", f"This API key may not do this: the permission {permission.value!r} is needed")
    if policy.authorizer is None:
        return None
    answer = policy.authorizer(permission, instance_id)
    if answer is True:
        return None
    # A response object from a login decorator is truthy: taking it as a yes would open the API
    if answer is False or answer is None:
        return Refusal(403, "forbidden", f"You may not do this: the permission {permission.value!r} is needed")
    raise TypeError(f"DURABLE_AUTHORIZER must return True or False, not {type(answer).__name__}")


def is_direct_local(caller: Caller) -> bool:
    """Whether the request came from this machine, asks for this machine, and was not passed on by a proxy (S1)."""
    # nginx without further settings sends HTTP/1.0, its own loopback Host and no forwarding header; nothing else would give it away
    return (
        _is_loopback(caller.peer)
        and is_loopback_host(caller.host)
        and caller.protocol != "HTTP/1.0"
        and not any(map(_tells_of_a_proxy, caller.headers))
    )


def is_loopback_host(host: str | None) -> bool:
    """Whether a ``Host`` header names this machine: ``localhost`` or a loopback address, with any port."""
    name, _ = _split_host(host or "")
    return name == "localhost" or _is_loopback(name)


def is_cross_site(caller: Caller, *, trusts_fetch_metadata: bool) -> bool:
    """Whether a page of another origin made a browser send this request (S2).

    Args:
        caller: the request.
        trusts_fetch_metadata: take the browser's word that the request is of the same origin, even if ``Origin`` and ``Host`` differ, as
            they do behind a proxy that rewrites ``Host``.
    """
    site = caller.headers.get("sec-fetch-site", "").strip().lower()
    if site in ("cross-site", "same-site"):
        return True
    if site == "same-origin" and trusts_fetch_metadata:
        return False
    origin = caller.headers.get("origin")
    return origin is not None and not _is_same_origin(origin, caller.host or "")


def _is_same_origin(origin: str, host: str) -> bool:
    try:
        parts = urllib.parse.urlsplit(origin)
        port = parts.port
    except ValueError:
        return False
    default = {"http": 80, "https": 443}.get(parts.scheme)
    if default is None or not parts.hostname:
        return False
    name, host_port = _split_host(host)
    return parts.hostname.lower() == name and (port or default) == (host_port or default)


def _split_host(host: str) -> tuple[str, int | None]:
    match = _HOST.fullmatch(host.strip().lower())
    if match is None:
        return "", None
    name, port = match.groups()
    return name.strip("[]"), int(port) if port else None


def _is_loopback(address: str | None) -> bool:
    try:
        parsed = ipaddress.ip_address(address or "")
    except ValueError:
        return False
    mapped = getattr(parsed, "ipv4_mapped", None)
    return bool((mapped or parsed).is_loopback)


def _tells_of_a_proxy(header: str) -> bool:
    return header in _PROXY_HEADERS or header.startswith(("x-forwarded", "x-original-", "cf-"))


def _check_key(policy: Policy, caller: Caller, accepts_basic: bool) -> Refusal | None:
    given = _given_keys(caller.headers, accepts_basic)
    if find_key(policy.keys, given) is not None:
        return None
    said = "The API key is not valid" if given else "An API key is needed: send it as 'Authorization: Bearer <key>' or 'X-Api-Key: <key>'"
    challenge = 'Basic realm="flask-durable", charset="UTF-8"' if accepts_basic else 'Bearer realm="flask-durable"'
    return Refusal(401, "unauthorized", said, {"WWW-Authenticate": challenge})


def _given_keys(headers: Mapping[str, str], accepts_basic: bool) -> list[str]:
    keys = [headers["x-api-key"].strip()] if headers.get("x-api-key") else []
    scheme, _, credentials = headers.get("authorization", "").strip().partition(" ")
    if scheme.lower() == "bearer" and credentials.strip():
        keys.append(credentials.strip())
    elif scheme.lower() == "basic" and accepts_basic:
        try:
            keys.append(base64.b64decode(credentials.strip(), validate=True).decode().partition(":")[2])
        except (binascii.Error, ValueError):
            keys.append("")
    return keys


_HOST = re.compile(r"(\[[0-9a-f:.%]+\]|[^:\[\]\s]+)(?::([0-9]{0,5}))?")
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
_PROXY_HEADERS = frozenset(
    {
        "client-ip",
        "fastly-client-ip",
        "forwarded",
        "forwarded-for",
        "true-client-ip",
        "via",
        "x-client-ip",
        "x-cluster-client-ip",
        "x-envoy-external-address",
        "x-host",
        "x-proxyuser-ip",
        "x-real-ip",
    }
)
_NOT_LOCAL = Refusal(
    403,
    "forbidden",
    "The management API answers only direct requests from this machine until access is configured. Set DURABLE_API_KEYS to a list of keys, "
    "or DURABLE_AUTHORIZER to a function of (permission, instance_id); DURABLE_ALLOW_ANONYMOUS = True serves everybody",
)
_CROSS_SITE = Refusal(403, "forbidden", "This request was made by a page of another origin; only pages of this server may change anything here")
