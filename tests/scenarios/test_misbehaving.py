"""Orchestrators that misbehave: the others go on, and an operator can read what became of them."""

from __future__ import annotations

import threading
import time

import pytest
from support import finish, run

from flask_durable import RuntimeStatus

pytestmark = pytest.mark.lasting_worker("a replaced worker begins the turn anew, with its time")

HUNDRED_MB = 100 * 1024 * 1024
OTHERS = 30
LONGEST = 20.0
"""Seconds in which the others must have ended; they need a fraction of one. tests/benchmarks/misbehaving.py measures what they lose."""


class NoTextError(Exception):
    def __str__(self):
        raise RuntimeError("no text")


def endless(ctx):
    while True:
        pass


def garbage(ctx):
    while True:
        try:
            yield 5
        except ValueError:
            continue


def recursive(ctx):
    return recursive(ctx) + 1


def huge_output(ctx):
    return "x" * HUNDRED_MB


def too_many_activities(ctx):
    yield ctx.when_all([ctx.call_activity("double", number) for number in range(100_001)])


def raises_what_has_no_text(ctx):
    raise NoTextError


def sleeps(ctx):
    time.sleep(5)


CASES = {
    endless: "The orchestrator ran for more than 1.5 s without a yield (DURABLE_TURN_TIMEOUT)",
    garbage: "The orchestrator yielded a int: 5, which is no task.",
    recursive: "maximum recursion depth exceeded",
    huge_output: f"The output is {HUNDRED_MB + 2} bytes of JSON; at most 1048576 are allowed",
    too_many_activities: "More than 100000 calls without a yield (DURABLE_MAX_ACTIONS_PER_TURN)",
    raises_what_has_no_text: "<NoTextError whose text could not be made>",
    sleeps: "The orchestrator ran for more than 1.5 s without a yield (DURABLE_TURN_TIMEOUT)",
}


@pytest.mark.parametrize("bad", CASES, ids=lambda bad: bad.__name__)
def test_one_that_misbehaves_fails_with_a_reason_and_stops_no_others(make_durable, bad):  # DESIGN 3.1.8, rules 6, 7, 10
    # Given good instances, and one that misbehaves
    durable = make_durable(DURABLE_TURN_TIMEOUT=60.0 if bad is too_many_activities else 1.5)
    durable.activity(name="double")(lambda value: value * 2)

    @durable.orchestrator
    def good(ctx, number):
        return (yield ctx.call_activity("double", number))

    durable.orchestrator(bad)
    durable.start_worker()
    run(durable, good, 0)
    durable.client.start(bad, instance_id="bad")

    # When the good ones run beside it, then they do in time
    began = time.monotonic()
    others = [durable.client.start(good, number) for number in range(OTHERS)]
    assert [finish(durable, each).output for each in others] == [2 * number for number in range(OTHERS)]
    assert time.monotonic() - began < LONGEST

    # And it ends with a reason, also on the command line
    status = finish(durable, "bad", 60)
    assert status.runtime_status is RuntimeStatus.FAILED
    assert status.output.startswith(CASES[bad])
    shown = durable._only._app.test_cli_runner().invoke(args=["durable", "status", "bad", "--json"])
    assert CASES[bad].partition(" (")[0][:60] in shown.output


def test_a_caller_with_a_huge_input_is_refused_and_stops_no_others(durable):  # S9
    durable.start_worker()
    refused = []

    def start():
        try:
            durable.client.start("wait_for_go", "x" * HUNDRED_MB)
        except ValueError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=start) for _ in range(2)]
    for thread in threads:
        thread.start()
    instance_id = durable.client.start("wait_for_go")
    durable.client.raise_event(instance_id, "Go", "through")
    assert finish(durable, instance_id).output == "through"
    for thread in threads:
        thread.join()
    assert len(refused) == 2
    assert all("at most 1048576 are allowed" in each for each in refused)
