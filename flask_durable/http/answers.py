"""JSON answers: one encoder that does not depend on how the host's JSON provider is set up."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from flask import Response

_encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def json_response(document: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """An answer with a JSON body that no cache keeps."""
    response = Response(_encoder.encode(document) + "\n", status, mimetype="application/json")
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"
    for name, value in (headers or {}).items():
        response.headers[name] = value
    return response
