"""uWSGI forks without Python's hooks."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from chaos_harness import wait_until

UWSGI = Path(sys.executable).with_name("uwsgi")
pytestmark = [pytest.mark.chaos, pytest.mark.skipif(not UWSGI.exists(), reason="uWSGI is not installed in this environment")]


def begin(chaos, *words, processes=2):
    return chaos.begin(
        *(
            "--http-socket",
            f"127.0.0.1:{chaos.port}",
            "--virtualenv",
            sys.prefix,
            "--processes",
            str(processes),
            "--module",
            "chaos_app:app",
            "--need-app",
        ),
        *("--disable-logging", *words),
        program=str(UWSGI),
    )


@pytest.mark.parametrize(
    "words", [["--master"], ["--master", "--lazy-apps"], ["--master", "--py-call-uwsgi-fork-hooks"], ["--die-on-term"]], ids=" ".join
)
def test_each_process_that_serves_has_a_worker(chaos, words):
    group = begin(chaos, "--enable-threads", *words)
    wait_until(lambda: len(chaos.live_workers()) == 2, "two workers without a request")
    serving = group.children() if "--master" in words else group.pids()
    assert chaos.live_workers() == serving
    assert chaos.start_over_http(100) == {202: 100}
    wait_until(lambda: chaos.unfinished() == 0, "the work is done")
    assert chaos.live_workers() == serving
    chaos.settle(f"uwsgi {' '.join(words)}", "none", 100, repeats=0)


@pytest.mark.parametrize("words", [["--master"], ["--master", "--lazy-apps"]], ids=" ".join)
def test_work_goes_on_after_kill_9_of_all(chaos, words):
    group = begin(chaos, "--enable-threads", *words)
    wait_until(lambda: len(chaos.live_workers()) == 2, "two workers")
    assert chaos.start_over_http(60, steps=3, seconds=0.2) == {202: 60}
    wait_until(lambda: len(chaos.holders()) == 2, "both hold work")
    dead = list(chaos.worker_rows())
    chaos.kill(group)
    before = chaos.snapshot()
    group = begin(chaos, "--enable-threads", *words)
    wait_until(lambda: chaos.completions() > len(before.results) and not chaos.held_by(dead), "work goes on by itself")
    wait_until(lambda: chaos.unfinished() == 0, "the work is done")
    chaos.settle(f"uwsgi {' '.join(words)}", "kill -9 of all", 60, [before], repeats=64)
