"""Clocks that step by an hour or a day (F7): leases and timers go by the time of the database, so nothing is lost, done twice or given away."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
from backends import BACKENDS
from chaos_harness import wait_until

pytestmark = pytest.mark.chaos
HOUR, DAY = 3600, 86400
LEASE = 2
TIMER = 1.5


def stay(seconds):
    """Let that much time pass."""
    since = time.monotonic()
    wait_until(lambda: time.monotonic() - since > seconds, "time passes")


def timers_of(site, prefix):
    """How long each timer lasted, told by a clock that does not step: from the end of the step before to the beginning of the next."""
    began, ended = ({(effect.instance_id, effect.task_id): effect.at for effect in site.ledger(word)} for word in ("began", "ended"))
    found = []
    for instance_id in {key[0] for key in began if key[0].startswith(prefix)}:
        numbers = sorted(task_id for found_id, task_id in began if found_id == instance_id)
        found += [began[instance_id, after] - ended[instance_id, before] for before, after in pairwise(numbers) if (instance_id, before) in ended]
    return found


@pytest.mark.parametrize("backend", [name for name in BACKENDS if name != "sqlite"], indirect=True)
def test_a_host_whose_clock_steps_keeps_its_lease_and_its_timers(make_site, clock):
    site = make_site(DURABLE_LEASE_SECONDS=LEASE, DURABLE_MAX_ACTIVITIES=4)
    site.start(40, name="Mixed", steps=[["work", 0.05], ["timer", TIMER], ["work", 0.05]], prefix="timer-")
    site.start(45, steps=5, seconds=0.3)
    skewed, steady = site.flask("durable", "worker", **clock.environment), site.worker()
    wait_until(lambda: len(site.holders()) == 2 and site.completions() > 20, "both hold work")
    workers = site.worker_rows()
    for seconds in (-HOUR, DAY):
        clock.step_to(seconds)
        site.kills += 1
        since = time.monotonic()
        stay(LEASE + 1)
        assert site.worker_rows() == workers, "a worker has lost its lease"
        assert any(effect.pid == skewed.pid and effect.at > since + LEASE for effect in site.ledger("began")), "it begins nothing any more"
    site.wait_for_all(85)
    timers = timers_of(site, "timer-")
    remark = f"{len(timers)} timers of {TIMER} s took {min(timers):.2f} s or more"
    site.settle(f"2 workers, {site.backend}", "F7 clock of one host steps", 85, repeats=0, remark=remark)
    assert site.worker_rows() == workers
    assert set(workers.values()) == {skewed.pid, steady.pid}
    assert min(timers) > TIMER - 1


@pytest.mark.parametrize("backend", [name for name in BACKENDS if name != "mysql"])
def test_work_goes_on_when_the_clock_of_the_database_steps(make_site_on, make_postgres, tmp_path, clock, backend):
    """On SQLite it is the clock of all processes: timers are due by it, but no lease is over and nothing waits because of it."""
    is_sqlite = backend == "sqlite"
    url = f"sqlite:///{tmp_path}/durable.db" if is_sqlite else make_postgres(environment=clock.environment).url
    site = make_site_on(url, DURABLE_LEASE_SECONDS=LEASE, DURABLE_MAX_ACTIVITIES=4)
    skewed = clock.environment if is_sqlite else {}
    site.gunicorn("--worker-class", "gthread", "--threads", "4", workers=2, **skewed)
    site.flask("durable", "worker", **skewed)
    wait_until(lambda: len(site.live_workers()) == 3 and site.answers(), "three workers that serve")
    workers = site.worker_rows()
    assert site.start_over_http(60, steps=5, seconds=0.3, prefix="order-") == {202: 60}
    timers = [["work", 0.05], ["timer", TIMER], ["work", 0.05]]
    assert site.start_over_http(40, name="Mixed", steps=timers, prefix="timer-") == {202: 40}
    for number, seconds in enumerate((-HOUR, DAY)):
        wait_until(lambda: len(site.holders()) == 3, "all hold work")
        clock.step_to(seconds)
        site.kills += 1
        since = time.monotonic()
        stay(LEASE + 1)
        assert site.worker_rows() == workers, "a worker was taken for dead"
        late = {effect.pid for effect in site.ledger("began") if effect.at > since + 1}
        assert late == set(workers.values()), "somebody begins nothing any more"
        assert site.start_over_http(20, steps=1, seconds=0.1, prefix=f"later-{number}-") == {202: 20}
    site.wait_for_all(140)
    site.settle(f"gunicorn and a worker, {backend}", "F7 clock of the database steps", 140, repeats=0)
    assert site.worker_rows() == workers
