"""Log lines: nothing that is filled in can begin a line of its own or act on a terminal."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest

from flask_durable.logs import get_logger, safe

PACKAGE = Path(__file__).parents[1] / "flask_durable"


@pytest.mark.parametrize("text", ["a\nERROR forged", "a\rb", "a\x1b[2Jb", "a\x00b", "a\x9bb", "a\u202eb", "a\u2028b", "a\ud800b"])
def test_control_characters_are_written_as_escapes(text, caplog):  # S6
    logger = get_logger("flask_durable.test")
    with caplog.at_level(logging.INFO):
        logger.info("Instance %s fails: %s", text, ValueError(text))
    message = caplog.records[0].getMessage()
    assert message.isprintable()
    assert message == f"Instance {safe(text)} fails: {safe(text)}"


def test_numbers_and_what_reads_well_stay_as_they_are(caplog):
    logger = get_logger("flask_durable.test")
    with caplog.at_level(logging.INFO):
        logger.info("%s %d %.1f", "größer", 5, 0.5)
    assert caplog.records[0].getMessage() == "größer 5 0.5"


@pytest.mark.parametrize("path", [path for path in sorted(PACKAGE.rglob("*.py")) if path.name != "logs.py"], ids=lambda path: path.name)
def test_every_logger_of_the_package_escapes(path):  # S6
    assert not re.search(r"getLogger\((\"flask_durable|__name__)", path.read_text())
