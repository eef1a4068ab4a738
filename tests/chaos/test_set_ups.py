"""Three set-ups of gunicorn that strand work, do it twice or hang where recovery belongs to a process: none of that here, on any backend."""

from __future__ import annotations

import pytest
from backends import BACKENDS
from chaos_harness import wait_until

pytestmark = [pytest.mark.chaos, pytest.mark.parametrize("backend", [name for name in BACKENDS if name != "mysql"], indirect=True)]
WORDS = ["--worker-class", "gthread", "--threads", "4"]


def serve(site, *words, workers=2):
    server = site.gunicorn(*WORDS, *words, workers=workers)
    wait_until(lambda: len(site.live_workers()) == workers and site.answers(), f"{workers} workers that serve")
    return server


def test_the_death_of_a_sibling_repeats_no_step_that_lives(make_site):
    """The process that replaces the dead one must not take what its living sibling is doing for lost."""
    site = make_site()
    server = serve(site)
    assert site.start_over_http(1, steps=3, seconds=1, prefix="order-") == {202: 1}
    wait_until(lambda: site.ledger("began"), "a step is under way")
    owner = site.ledger("began")[0].pid
    victim = next(iter(server.children() - {owner}))
    site.kill_one(victim)
    wait_until(lambda: len(site.live_workers()) == 2 and victim not in site.live_workers(), "gunicorn has replaced it")
    site.wait_for_all(1)
    assert len(site.ledger("began")) == 3
    site.settle(f"gunicorn, {site.backend}", "idle sibling killed", 1, repeats=0)


def test_work_of_a_process_that_never_comes_back_is_done_by_others(make_site):
    site = make_site(DURABLE_LEASE_SECONDS=4)
    server = serve(site)
    assert site.start_over_http(12, steps=3, seconds=0.5, prefix="order-") == {202: 12}
    wait_until(lambda: site.ledger("ended"), "a step was done")
    owner = site.ledger("ended")[0].pid
    other = next(iter(server.children() - {owner}))
    under_way = {effect.call for effect in site.ledger("began") if effect.pid == owner} - {effect.call for effect in site.ledger("ended")}
    site.kill_one(owner)
    before = site.snapshot()
    took = wait_until(lambda: owner not in site.worker_rows().values(), "the dead one's work is given to others", 20)
    site.wait_for_all(12)
    began = [effect.call for effect in site.ledger("began") if effect.pid != owner]
    assert len(began) == len(set(began)), "a step was begun twice by those that live"
    assert other in {effect.pid for effect in site.ledger("ended")}
    site.settle(f"gunicorn, {site.backend}", "owner killed", 12, [before], repeats=len(under_way) + 16, remark=f"taken over after {took:.2f} s")


def test_an_app_loaded_before_the_fork_serves_and_works(make_site):
    site = make_site()
    server = serve(site, "--preload")
    assert site.live_workers() == server.children()
    assert site.start_over_http(60, steps=3, seconds=0.02, prefix="order-") == {202: 60}
    site.wait_for_all(60)
    assert len(site.ledger("began")) == 180
    site.settle(f"gunicorn --preload, {site.backend}", "none", 60, repeats=0)
