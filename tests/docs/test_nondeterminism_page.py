"""docs/nondeterminism.md shows the messages as the real engine prints them; run this file to write them anew."""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

sys.path.insert(0, str(Path(__file__).parents[1]))

from support import event_names, until

from flask_durable import FlaskDurable

PAGE = Path(__file__).parents[2] / "docs" / "nondeterminism.md"
CASES = ["A renamed step", "A reordered step", "A removed step", "An added step"]
SECTION = r"### {}\n\n```python\n(.*?)```\n\n```text\n(.*?)\n```"


def orchestrator(source: str) -> Callable[..., Any]:
    """The function of a block of the page, as if it were all that shop.py holds."""
    names: dict[str, Any] = {"timedelta": timedelta}
    exec(compile(source, "shop.py", "exec"), names)
    return names["process_order"]


def section(case: str) -> tuple[str, str]:
    """The changed code and the message of one case."""
    found = re.search(SECTION.format(re.escape(case)), PAGE.read_text(), re.DOTALL)
    assert found is not None, case
    return found.group(1), found.group(2)


def original() -> Callable[..., Any]:
    found = re.search(r"```python\n(def process_order.*?)```", PAGE.read_text(), re.DOTALL)
    assert found is not None
    return orchestrator(found.group(1))


def deployed(folder: Path, code: Callable[..., Any], **config: Any) -> FlaskDurable:
    app = Flask("shop", instance_path=str(folder))
    app.config.update(TESTING=True, DURABLE_DATABASE=f"sqlite:///{folder}/durable.db", **config)
    durable = FlaskDurable(app)
    for name in ("charge", "take_payment", "ship"):
        durable.activity(name=name)(lambda order: order)
    durable.orchestrator(code)
    durable.start_worker()
    return durable


def begun(folder: Path) -> str:
    """An order that was charged and shipped by the original code."""
    old = deployed(folder, original())
    try:
        instance_id: str = old.client.start("process_order", "a cup")
        until(lambda: event_names(old, instance_id).count("TaskCompleted") == 2)
    finally:
        old.close()
    return instance_id


def message(case: str, folder: Path) -> str:
    """What the engine says to the changed code of one case."""
    instance_id = begun(folder)
    new = deployed(folder, orchestrator(section(case)[0]))
    try:
        new.client.raise_event(instance_id, "Rated", 5)
        status = new.client.wait_for_completion(instance_id, timeout=20)
        assert status is not None
        assert status.runtime_status == "Failed"
        return str(status.output)
    finally:
        new.close()


@pytest.mark.parametrize("case", CASES)
def test_the_message_is_shown_as_it_is_printed(case, tmp_path):  # DET-5 to DET-7, rule 2
    assert section(case)[1] == message(case, tmp_path)


@pytest.mark.parametrize("case", CASES)
def test_what_has_failed_goes_on_after_the_code_is_put_back_and_a_rewind(case, tmp_path):  # rules 2, 45
    message(case, tmp_path)
    old = deployed(tmp_path, original())
    try:
        (failed,) = old.client.list().items
        old.client.rewind(failed.instance_id)
        assert old.client.wait_for_completion(failed.instance_id, timeout=20).output == {"receipt": "a cup", "stars": 5}
    finally:
        old.close()


@pytest.mark.parametrize("case", CASES)
def test_a_bad_deploy_can_be_parked_and_taken_back(case, tmp_path):  # rule 2
    # Given code that does not fit, in an app that parks what does not fit
    code, text = section(case)
    instance_id = begun(tmp_path)
    new = deployed(tmp_path, orchestrator(code), DURABLE_NONDETERMINISM="park")
    try:
        new.client.raise_event(instance_id, "Rated", 5)

        # Then the reason is the same message
        assert until(lambda: new.client.get_status(instance_id).parked_reason) == text
    finally:
        new.close()

    # When the right code is back, then the instance goes on
    old = deployed(tmp_path, original())
    try:
        old.client.resume(instance_id)
        assert old.client.wait_for_completion(instance_id, timeout=20).output == {"receipt": "a cup", "stars": 5}
    finally:
        old.close()


def write() -> None:
    text = PAGE.read_text()
    for case in CASES:
        code, shown = section(case)
        with tempfile.TemporaryDirectory() as folder:
            printed = message(case, Path(folder))
        text = text.replace(f"{code}```\n\n```text\n{shown}\n", f"{code}```\n\n```text\n{printed}\n")
    PAGE.write_text(text)


if __name__ == "__main__":
    write()
