"""A SQLite file on a full disk (F8), and one that others lock, read, copy or write (F9): errors are clean, and nothing is lost."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import threading
import time

import pytest
from chaos_harness import wait_until
from fault_harness import LENGTH, Callers, settle_calls
from promptness import in_time

pytestmark = pytest.mark.chaos
GUNICORN = ["--worker-class", "gthread", "--threads", "8"]
TIMEOUT = 2
LONGEST = 2 * TIMEOUT + 6
MEGABYTE = 2**20


class Tmpfs:
    """A small file system of its own."""

    def __init__(self, folder):
        self.path = folder / "disk"
        self.path.mkdir()
        words = ["mount", "-t", "tmpfs", "-o", f"size={24 * MEGABYTE}", "tmpfs", str(self.path)]
        if os.geteuid() != 0 or subprocess.run(words, capture_output=True, check=False).returncode:
            pytest.skip("a file system cannot be mounted here")

    def fill(self):
        with (self.path / "ballast").open("wb", buffering=0) as ballast, contextlib.suppress(OSError):
            while True:
                ballast.write(b"\0" * 4096)

    def free(self):
        (self.path / "ballast").unlink()

    def close(self):
        subprocess.run(["umount", "--lazy", str(self.path)], check=True)


@pytest.fixture
def disk(tmp_path):
    made = Tmpfs(tmp_path)
    yield made
    made.close()


def serve(site, *words, workers=2):
    server = site.gunicorn(*GUNICORN, *words, workers=workers)
    wait_until(lambda: len(site.live_workers()) == workers and site.answers(), f"{workers} workers that serve", 60)
    return server


def again_after(site, since):
    wait_until(lambda: any(effect.at > since for effect in site.ledger("began")), "work goes on")
    return min(effect.at for effect in site.ledger("began") if effect.at > since) - since


def test_a_full_disk_is_a_clean_error_and_work_goes_on_when_there_is_room(make_site_on, disk):
    site = make_site_on(f"sqlite:///{disk.path}/durable.db", DURABLE_DATABASE_TIMEOUT=TIMEOUT, DURABLE_MAX_DELIVERIES=1000)
    serve(site)
    pauses = []
    with Callers(site, threads=4) as callers:
        for _ in range(round(2 * LENGTH)):
            goal = site.completions() + 30
            wait_until(lambda goal=goal: site.completions() >= goal, "work is being done")
            disk.fill()
            told = callers.statuses()[503]
            wait_until(lambda told=told: callers.statuses()[503] > told + 4, "callers are told that it cannot be written")
            assert site.integrity() == "ok"
            disk.free()
            pauses.append(again_after(site, time.monotonic()))
    remark = f"work again {max(pauses):.1f} s after"
    settle_calls(site, callers, "gunicorn, sqlite", "disk full", repeats=200, remark=remark, deadline=LONGEST)
    in_time(max(pauses), 10)


@pytest.fixture
def site(make_site_on, tmp_path):
    return make_site_on(f"sqlite:///{tmp_path}/durable.db", DURABLE_DATABASE_TIMEOUT=TIMEOUT)


def wal_size(site):
    with contextlib.suppress(FileNotFoundError):
        return os.path.getsize(f"{site.database}-wal")
    return 0


def test_an_outsider_that_locks_the_file(site):
    serve(site)
    pauses = []
    with Callers(site) as callers:
        for seconds in (1, 5 * LENGTH):
            goal = site.completions() + 10
            wait_until(lambda goal=goal: site.completions() >= goal, "work is being done")
            with contextlib.closing(sqlite3.connect(site.database, timeout=10, isolation_level=None)) as outsider:
                outsider.execute("BEGIN EXCLUSIVE")
                time.sleep(seconds)  # what is tried is a lock of that length
                outsider.execute("ROLLBACK")
            pauses.append(again_after(site, time.monotonic()))
    settle_calls(
        site, callers, "gunicorn, sqlite", "locked by an outsider", repeats=0, remark=f"work again {max(pauses):.1f} s after", deadline=LONGEST
    )
    in_time(max(pauses), 5)


def test_a_long_reader_and_a_backup_under_way(site):
    """A reader keeps the log from being put back into the file; when it ends, the log is used anew and grows no more."""
    serve(site)
    is_over = threading.Event()
    copy = site.folder / "copy.db"

    def back_up():
        with contextlib.closing(sqlite3.connect(site.database)) as source, contextlib.closing(sqlite3.connect(copy)) as target:
            source.backup(target, pages=2, sleep=0.02)
        is_over.set()

    with Callers(site, threads=4, pause=0.01) as callers:
        wait_until(lambda: site.completions() > 20, "work is being done")
        with contextlib.closing(sqlite3.connect(site.database, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            seen = reader.execute("SELECT COUNT(*) FROM durable_history").fetchone()
            backup = threading.Thread(target=back_up, daemon=True)
            backup.start()
            goal = site.completions() + 150 * LENGTH
            wait_until(lambda: site.completions() >= goal, "work goes on beside the reader")
            assert reader.execute("SELECT COUNT(*) FROM durable_history").fetchone() == seen
            grown = wal_size(site)
        goal = site.completions() + 150 * LENGTH
        wait_until(lambda: site.completions() >= goal, "work goes on after the reader")
        after = wal_size(site)
    wait_until(is_over.is_set, "the copy is made")
    with contextlib.closing(sqlite3.connect(copy)) as made:
        assert made.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    remark = f"log {grown / MEGABYTE:.1f} MB at the reader's end, {after / MEGABYTE:.1f} MB later"
    settle_calls(site, callers, "gunicorn, sqlite", "long reader, backup", repeats=0, remark=remark, deadline=LONGEST)
    assert after <= grown + 8 * MEGABYTE


def test_sixteen_processes_that_write(site):
    serve(site, "--preload", workers=16)
    with Callers(site, threads=8, pause=0.0) as callers:
        wait_until(lambda: site.completions() > 400 * LENGTH, "much work is done", 90)
        largest = wal_size(site)
    settle_calls(site, callers, "gunicorn -w 16, sqlite", "16 writers", repeats=0, remark=f"log {largest / MEGABYTE:.1f} MB", deadline=LONGEST)
    assert largest < 32 * MEGABYTE
