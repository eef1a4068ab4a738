"""Interruptions: where they come, and what is said of code that cannot be ended."""

from __future__ import annotations

import logging
import threading
from functools import partial

import pytest
from support import finish, until

from flask_durable import RuntimeStatus
from flask_durable.core.events import ExecutionStarted
from flask_durable.core.execution import Execution
from flask_durable.runtime import slow_turns
from flask_durable.runtime.interruption import TurnTimeoutError, interrupt, press


class SlowHandler(logging.Handler):
    """Holds the lock of its log until it is told to go on."""

    def __init__(self):
        super().__init__()
        self.is_in, self.goes_on = threading.Event(), threading.Event()

    def emit(self, record):
        self.is_in.set()
        self.goes_on.wait(20)


@pytest.mark.parametrize("way", [interrupt, lambda thread: interrupt(thread, anywhere=True), press])
def test_code_that_waits_in_a_log_handler_keeps_no_lock_when_it_is_cut_short(way):  # DESIGN 3.1.8
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
        until(lambda: press(thread) or not thread.is_alive())
        assert execution.is_finished
        for lock in (handler.lock, logging._lock):
            assert lock.acquire(timeout=5)
            lock.release()
    finally:
        ends.set()
        handler.goes_on.set()
        thread.join()
        logger.removeHandler(handler)


def test_code_that_does_nothing_but_write_logs_is_ended_and_keeps_no_lock(tmp_path):  # DESIGN 3.1.8
    logger = logging.getLogger("tests.interruption.file")
    handler = logging.FileHandler(tmp_path / "log")
    logger.addHandler(handler)
    logger.propagate = False
    caught, ends = [], threading.Event()

    def endless(ctx):
        while not ends.is_set():
            try:
                while not ends.is_set():
                    logger.warning("still here")
            except TurnTimeoutError:
                caught.append(None)

    def interrupt_until_it_is_enough(thread):
        interrupt(thread)
        return len(caught) > 500 or not thread.is_alive()

    try:
        while len(caught) <= 500:
            execution = Execution(endless)
            thread = threading.Thread(target=execution.advance, args=(1, [ExecutionStarted("endless", None, "i", "i:0")]), daemon=True)
            thread.start()
            until(partial(interrupt_until_it_is_enough, thread))
        ends.set()
        thread.join(20)
        assert not thread.is_alive()
        for lock in (handler.lock, logging._lock):
            assert lock.acquire(timeout=5)
            lock.release()
    finally:
        ends.set()
        logger.removeHandler(handler)
        handler.close()


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
