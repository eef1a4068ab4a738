"""An orderly end under load: nothing new is begun, running activities get their grace, the rest goes to others at once."""

from __future__ import annotations

import signal
import time

import pytest
from chaos_harness import wait_until
from promptness import bound, in_time

pytestmark = pytest.mark.chaos


def begin_work(chaos, count, steps, seconds):
    for number in range(count):
        chaos.client.start("Chain", {"steps": steps, "seconds": seconds}, instance_id=f"order-{number}")


def begin_server(chaos, kind):
    """A server with the number of its workers."""
    if kind == "flask durable worker":
        return chaos.worker(), 1
    return chaos.gunicorn("--worker-class", kind.partition(" ")[2], "--threads", "2" if "gthread" in kind else "1", workers=2), 2


@pytest.mark.parametrize("kind", ["flask durable worker", "gunicorn sync", "gunicorn gthread"])
def test_sigterm_under_load_loses_and_repeats_nothing(chaos, kind):
    begin_work(chaos, 100, 3, 0.3)
    first, workers = begin_server(chaos, kind)
    second = chaos.worker()
    wait_until(lambda: len(chaos.holders()) == workers + 1 and chaos.completions() > 30, "all hold work")
    theirs = first.pids()
    ids = [worker_id for worker_id, pid in chaos.worker_rows().items() if pid in theirs]
    at = time.monotonic()
    first.terminate()
    before = chaos.snapshot()
    first.wait()
    took = time.monotonic() - at
    assert chaos.held_by(ids) == 0
    wait_until(lambda: chaos.unfinished() == 0, "the other one does the rest", 60)
    late = max((effect.at - at for effect in chaos.ledger("began") if effect.pid in theirs), default=0.0)
    resumed = min(effect.at - at for effect in chaos.ledger("began") if effect.pid == second.pid and effect.at > at)
    chaos.settle(
        kind, "SIGTERM", 100, [before], repeats=0, remark=f"ended after {took:.2f} s, last begin at {late:.2f} s, taken over at {resumed:.2f} s"
    )
    in_time(late, 0.3)
    in_time(resumed, 0.5)
    assert "Traceback" not in first.text()


@pytest.mark.parametrize("kind", ["flask durable worker", "gunicorn sync"])
def test_what_outlasts_the_grace_is_given_to_another(make_chaos, kind):
    chaos = make_chaos(DURABLE_SHUTDOWN_GRACE=0.5, DURABLE_MAX_ACTIVITIES=4)
    begin_work(chaos, 12, 1, 2.5)
    first, workers = begin_server(chaos, kind)
    wait_until(lambda: len(chaos.ledger("began")) == min(12, 4 * workers), "activities are running")
    rows = list(chaos.worker_rows())
    chaos.worker()
    wait_until(lambda: len(chaos.worker_rows()) == workers + 1, "there is another worker")
    at = time.monotonic()
    first.terminate()
    wait_until(lambda: chaos.held_by(rows) == 0, "its work is given back")
    given_back = time.monotonic() - at
    first.wait()
    took = time.monotonic() - at
    wait_until(lambda: chaos.unfinished() == 0, "the other one does it", 60)
    chaos.settle(f"{kind}, grace 0.5 s", "SIGTERM", 12, repeats=4 * workers, remark=f"given back after {given_back:.2f} s, ended after {took:.2f} s")
    assert 0.4 < given_back < 2.5
    in_time(took, 2.5)


@pytest.mark.chaos
def test_a_second_sigterm_ends_the_drain_at_once_and_another_takes_over(make_chaos, backend, backend_url):
    chaos = make_chaos(url=backend_url, DURABLE_SHUTDOWN_GRACE=60, DURABLE_LEASE_SECONDS=60, DURABLE_MAX_ACTIVITIES=4)
    begin_work(chaos, 12, 2, 2.5)
    first = chaos.worker()
    wait_until(lambda: len(chaos.ledger("began")) == 4, "activities are running")
    old = next(iter(chaos.worker_rows()))
    chaos.worker()
    wait_until(lambda: len(chaos.holders()) == 2, "both hold work")
    wait_until(lambda: len({effect.call for effect in chaos.ledger("began") if effect.pid == first.pid}) >= 8, "it has begun others")
    first.terminate()
    wait_until(lambda: "SIGTERM: the worker ends" in first.text(), "it has got the signal: two that come together are one")
    wait_until(lambda: chaos.holders()[old] <= 4, "it has given back what it has not begun")
    at, before = time.monotonic(), chaos.snapshot()
    under_way = len(chaos.ledger("began")) - len(chaos.ledger("ended"))
    first.terminate()
    assert first.wait() == 128 + signal.SIGTERM
    ended = time.monotonic() - at
    wait_until(lambda: chaos.held_by([old]) == 0, "the other one has its work")
    taken = time.monotonic() - at
    wait_until(lambda: chaos.unfinished() == 0, "all are completed", 60)
    chaos.kills = 2
    remark = f"ended {ended:.2f} s after the second one, taken over after {taken:.2f} s"
    chaos.settle(f"flask durable worker, {backend}", "F18 second SIGTERM", 12, [before], repeats=under_way, remark=remark)
    in_time(ended, 1)
    in_time(taken, bound(chaos.environment()) + 1)


@pytest.mark.parametrize(("number", "repeats"), [(signal.SIGTERM, 32), (signal.SIGINT, 0)])
def test_flask_run_is_followed_by_another_at_once(chaos, number, repeats):
    """At SIGTERM it dies as it stands, and the free lock shows it; at Ctrl+C it ends in order."""
    begin_work(chaos, 60, 3, 0.3)
    first, _ = chaos.flask_run(), chaos.worker()
    wait_until(lambda: len(chaos.holders()) == 2 and chaos.completions() > 20, "both hold work")
    ids = [worker_id for worker_id, pid in chaos.worker_rows().items() if pid == first.pid]
    at = time.monotonic()
    first.process.send_signal(number)
    wait_until(lambda: chaos.held_by(ids) == 0, "the other one has its work")
    took = time.monotonic() - at
    first.wait()
    wait_until(lambda: chaos.unfinished() == 0, "all are completed")
    chaos.settle("flask run", signal.Signals(number).name, 60, repeats=repeats, remark=f"its work is free after {took:.2f} s")
    in_time(took, bound(chaos.environment()))


def test_a_frozen_worker_is_replaced_and_its_late_commits_are_refused(make_chaos, backend, backend_url):
    chaos = make_chaos(url=backend_url, DURABLE_LEASE_SECONDS=1, DURABLE_MAX_ACTIVITIES=8)
    begin_work(chaos, 60, 4, 0.2)
    zombie, other = (chaos.flask("durable", "worker", CHAOS_WATCH="1") for _ in range(2))
    wait_until(lambda: len(chaos.holders()) == 2 and chaos.completions() > 20, "both hold work")
    old = next(worker_id for worker_id, pid in chaos.worker_rows().items() if pid == zombie.pid)
    held = {(row[0], row[1]) for row in chaos.rows("SELECT instance_id, task_id FROM durable_activity WHERE worker_id = ?", old)}
    chaos.freeze(zombie)
    at = time.monotonic()
    before = chaos.snapshot()
    wait_until(lambda: chaos.held_by([old]) == 0, "it is taken for dead")
    took = time.monotonic() - at
    wait_until(
        lambda: (
            held & {(row[0], row[1]) for row in chaos.rows("SELECT instance_id, task_id FROM durable_history WHERE event_type = 'TaskCompleted'")}
        ),
        "the other one has done what it held",
    )
    assert chaos.unfinished()
    second = chaos.snapshot()
    zombie.process.send_signal(signal.SIGCONT)
    wait_until(lambda: zombie.pid in chaos.worker_rows().values(), "it goes on as a new worker")
    wait_until(lambda: chaos.unfinished() == 0, "all are completed", 60)
    assert old not in chaos.worker_rows()
    assert chaos.live_workers() == {zombie.pid, other.pid}
    assert "was taken for dead" in zombie.text()
    recorded = {row[0].strip('"') for row in chaos.rows("SELECT payload FROM durable_history WHERE event_type = 'TaskCompleted'")}
    refused = [effect for effect in chaos.ledger("ended") if effect.token not in recorded]
    assert {effect.pid for effect in refused} <= {zombie.pid, other.pid}
    fenced = sum(commit.outcome == "refused" for commit in chaos.commits()[0])
    chaos.settle(
        f"{backend}, 2 workers, lease 1 s",
        "F6 SIGSTOP, SIGCONT",
        60,
        [before, second],
        repeats=2 * 8,
        remark=f"taken over after {took:.2f} s, {len(refused)} late results and {fenced} commits refused",
    )
    in_time(took, 3.5)
    assert refused
    assert fenced
