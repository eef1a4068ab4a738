"""Submissions: whoever was answered goes on before the loop does, and nobody can hold the loop up by not waking."""

from __future__ import annotations

import threading
import time

from support import until

from flask_durable.runtime.steps import Submission, let_go_on
from flask_durable.storage.interface import StartInstance

COMMAND = StartInstance("a", "e", "greet")


def test_the_thread_that_was_answered_has_woken_up_before_the_loop_goes_on():
    submission = Submission(COMMAND)
    caller = threading.Thread(target=submission.wait, args=(10,))
    caller.start()
    until(lambda: submission._is_awaited)
    assert not submission.goes_on(0)
    submission.answer("a")
    assert submission.goes_on(10)
    caller.join()


def test_nobody_is_waited_for_who_does_not_wait():
    began = time.monotonic()
    submissions = [Submission(COMMAND) for _ in range(10_000)]
    for submission in submissions:
        submission.answer("a")
    let_go_on(submissions, lambda: began)  # a clock that stands still would never end a wait
    assert all(submission.goes_on(60) for submission in submissions[:10])


def test_a_thread_that_does_not_wake_is_waited_for_no_longer_than_a_moment():
    submissions = [Submission(COMMAND) for _ in range(1000)]
    for submission in submissions:
        submission._is_awaited = True
    began = time.monotonic()
    let_go_on(submissions, time.monotonic)
    assert time.monotonic() - began < 0.25


def test_who_has_given_up_is_not_waited_for():
    submission = Submission(COMMAND)
    assert not submission.wait(0)
    submission.withdraw()
    submission.answer("a")
    assert submission.goes_on(60)
