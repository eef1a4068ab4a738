"""Links: the addresses with which a caller goes on, and where they begin."""

from __future__ import annotations

from urllib.parse import quote, urlencode

from flask import Request

from flask_durable.config import Settings


def base_of(request: Request, settings: Settings) -> str:
    """Scheme, host and mount path, without a slash at the end.

    Forwarding headers are never read here: whoever trusts his proxy says so with ProxyFix, or sets ``DURABLE_BASE_URL``.
    """
    return settings.base_url or request.url_root.rstrip("/")


def management_links(base: str, settings: Settings, instance_id: str) -> dict[str, str]:
    """The links of one instance.

    Placeholders stand unencoded and every link has a query, because clients replace the braces as text and append ``&name=value``.
    """
    instance = f"{base}{settings.url_prefix}/{quote(instance_id, safe='')}"
    hub = urlencode({"taskHub": settings.task_hub})
    return {
        "statusQueryGetUri": f"{instance}?{hub}",
        "sendEventPostUri": f"{instance}/raiseEvent/{{eventName}}?{hub}",
        "terminatePostUri": f"{instance}/terminate?reason={{text}}&{hub}",
        "purgeHistoryDeleteUri": f"{instance}?{hub}",
        "restartPostUri": f"{instance}/restart?{hub}",
        "suspendPostUri": f"{instance}/suspend?reason={{text}}&{hub}",
        "resumePostUri": f"{instance}/resume?reason={{text}}&{hub}",
        "rewindPostUri": f"{instance}/rewind?reason={{text}}&{hub}",
    }


def this_page(base: str, request: Request) -> str:
    """The address of the present request, as the caller may use it again."""
    query = request.query_string.decode("latin-1")
    return f"{base}{quote(request.path)}" + (f"?{quote(query, safe=_QUERY_SAFE)}" if query else "")


def next_page(base: str, request: Request, token: str) -> str:
    """The address of the page after the present one."""
    kept = [(name, value) for name, value in request.args.items(multi=True) if name.casefold() != "continuationtoken"]
    return f"{base}{quote(request.path)}?{urlencode([*kept, ('continuationToken', token)])}"


_QUERY_SAFE = "%&=+,:;@/?!$'()*~"
