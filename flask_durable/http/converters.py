"""The last part of a path that is an instance id: never one of the words that have routes of their own."""

from __future__ import annotations

import re

from flask import Flask
from werkzeug.routing import Map, UnicodeConverter

from flask_durable.core.ids import RESERVED_IDS

NAME = "durable_instance"

_PAGES = RESERVED_IDS - {"start"}
"""The reserved words that are whole paths; `start` is only the beginning of one."""

_OTHERS = "|".join(re.escape(word) for word in sorted(_PAGES))


class InstanceIdConverter(UnicodeConverter):
    """Without it, `DELETE /versions` would reach the instance of that id, and `OPTIONS /versions` would promise it."""

    def __init__(self, map: Map) -> None:
        super().__init__(map)
        self.regex = f"(?!(?:{_OTHERS})(?:/|$)){self.regex}"


def add_converter(app: Flask) -> None:
    """Let the app's routes use it."""
    app.url_map.converters[NAME] = InstanceIdConverter
