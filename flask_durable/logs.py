"""Logs: the package's loggers, and texts with nothing in them that a log reader or a terminal would obey."""

from __future__ import annotations

import logging
import re
from typing import Any

# Control characters, marks that reverse the direction of text or hide, lone surrogates
UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")


def safe(text: str) -> str:
    """The text with everything that a terminal would obey, or not show, written out as an escape (S6)."""
    return UNSAFE.sub(_escaped, text)


def get_logger(name: str) -> logging.Logger:
    """The logger of that name; what is filled into its messages cannot begin a line of its own (S6)."""
    logger = logging.getLogger(name)
    if _FILTER not in logger.filters:
        logger.addFilter(_FILTER)
    return logger


class _Escape(logging.Filter):
    """Escapes texts and exceptions among the arguments; the messages themselves stand in the code."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Change the record, and let it pass."""
        if isinstance(record.args, tuple):
            record.args = tuple(map(_safe_argument, record.args))
        return True


def _safe_argument(value: Any) -> Any:
    return safe(str(value)) if isinstance(value, str | BaseException) else value


def _escaped(match: re.Match[str]) -> str:
    code = ord(match.group())
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


_FILTER = _Escape()
