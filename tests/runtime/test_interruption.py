"""Interruptions: where they come, and what is said of code that cannot be ended."""

from __future__ import annotations

import logging
import threading

import pytest
from support import finish, until

from flask_durable import RuntimeStatus
from flask_durable.core.events import ExecutionStarted
from flask_durable.core.execution import Execution
from flask_durable.runtime import slow_turns
from flask_durable.runtime.interruption import interrupt, press


class SlowHandler(logging.Handler):
    """Holds the lock of its log until it is told to go on."""

    def __init__(self):
        super().__init__()
        self.is_in, self.goes_on, self.written = threading.Event(), threading.Event(), 0

    def emit(self, record):
        self.is_in.set()
        self.goes_on.wait(20)
        self.written += 1


@pytest.mark.parametrize("way", [interrupt, lambda thread: interrupt(thread, anywhere=True), press])
def test_code_that_writes_a_log_is_interrupted_before_or_after_it(way):  # DESIGN 3.1.8
    logger, handler, ends = logging.getLogger("tests.interruption"), SlowHandler(), threading.Event()
    logger.addHandler(handler)

    def endless(ctx):
        while not ends.is_set():
            logger.warning("still here")

    execution = Execution(endless)
    thread = threading.Thread(target=execution.advance, args=(1, [ExecutionStarted("endless", None, "i", "i:0")]))
    thread.start()
    try:
        assert handler.is_in.wait(20)
        way(thread)
        handler.goes_on.set()
        until(lambda: handler.written > 1)
        until(lambda: press(thread) or not thread.is_alive())
        assert execution.is_finished
        assert not any(lock._is_owned() for lock in (handler.lock, logging._lock))
    finally:
        ends.set()
        handler.goes_on.set()
        thread.join()
        logger.removeHandler(handler)


@pytest.mark.one_worker("the log is that of this process")
def test_code_that_cannot_be_ended_is_reported_with_what_to_do(make_durable, monkeypatch, caplog):  # DESIGN 3.1.8
    monkeypatch.setattr(slow_turns, "HOPELESS", 0.2)
    durable = make_durable(DURABLE_TURN_TIMEOUT=0.5)

    @durable.orchestrator
    def blocked(ctx):
        opened.wait(60)

    opened = threading.Event()
    durable.start_worker()
    durable.client.start(blocked, instance_id="bad")
    assert finish(durable, "bad").runtime_status is RuntimeStatus.FAILED
    until(lambda: "The code of orchestrator blocked of instance bad cannot be ended" in caplog.text)
    opened.set()
