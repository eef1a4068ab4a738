"""Exactly one worker in each process that serves, before any request, and none anywhere else."""

from __future__ import annotations

import os

import pytest
from chaos_harness import PREFIX, is_alive, wait_until
from promptness import bound, in_time

pytestmark = pytest.mark.chaos


def has_one_worker(chaos):
    """Whether one worker is registered that lives, in the process that serves."""
    rows = chaos.worker_rows()
    return len(rows) == 1 and all(map(is_alive, rows.values()))


def serving_process(chaos):
    return int(chaos.request("GET", "/")[1])


def test_the_reloader_leaves_one_worker_after_each_reload(chaos):
    group = chaos.flask_run("--debug")
    wait_until(lambda: chaos.live_workers(), "a worker without a request")
    pids = []
    for _ in range(3):
        wait_until(lambda: has_one_worker(chaos) and chaos.answers() and serving_process(chaos) not in pids, "one worker in a new process")
        pids.append(serving_process(chaos))
        assert set(chaos.worker_rows().values()) == {pids[-1]}
        assert group.pids() == {group.pid, pids[-1]}
        assert chaos.start_over_http(20) == {202: 20}
        wait_until(lambda: chaos.unfinished() == 0, "the work is done")
        app = chaos.folder / "chaos_app.py"
        app.write_text(app.read_text() + "\n# changed\n")
    wait_until(lambda: has_one_worker(chaos) and chaos.answers() and serving_process(chaos) not in pids, "one worker in a new process")
    assert group.pid not in chaos.worker_rows().values()
    chaos.settle("flask run --debug", "3 reloads", 60, repeats=0)


def test_the_reloader_of_app_run_leaves_one_worker_too(chaos):
    group = chaos.begin(str(chaos.folder / "chaos_app.py"), CHAOS_DEBUG="1")
    wait_until(lambda: has_one_worker(chaos) and chaos.answers(), "one worker without a request")
    assert set(chaos.worker_rows().values()) == {serving_process(chaos)} == group.children()
    app = chaos.folder / "chaos_app.py"
    app.write_text(app.read_text() + "\n# changed\n")
    first = set(chaos.worker_rows())
    wait_until(lambda: chaos.worker_rows() and set(chaos.worker_rows()) != first, "a worker of the new process")
    wait_until(lambda: has_one_worker(chaos) and chaos.answers(), "one worker")
    assert set(chaos.worker_rows().values()) == {serving_process(chaos)} == group.children()


@pytest.mark.parametrize("server", ["flask run", "flask run --debug --no-reload", "app.run", "waitress"])
def test_a_server_of_one_process_has_one_worker(chaos, server):
    words = {
        "flask run": ["-m", "flask", "--app", "chaos_app", "run", "--port", str(chaos.port)],
        "flask run --debug --no-reload": ["-m", "flask", "--app", "chaos_app", "run", "--port", str(chaos.port), "--debug", "--no-reload"],
        "app.run": [str(chaos.folder / "chaos_app.py")],
        "waitress": ["-m", "waitress", "--listen", f"127.0.0.1:{chaos.port}", "chaos_app:app"],
    }[server]
    if server == "waitress":
        pytest.importorskip("waitress")
    group = chaos.begin(*words)
    took = wait_until(chaos.live_workers, "a worker without a request")
    assert set(chaos.worker_rows().values()) == {group.pid}
    wait_until(chaos.answers, "it serves")
    assert chaos.start_over_http(50) == {202: 50}
    wait_until(lambda: chaos.unfinished() == 0, "the work is done")
    assert len(chaos.worker_rows()) == 1
    chaos.settle(server, "none", 50, repeats=0, remark=f"worker after {took:.2f} s")
    in_time(took, bound(chaos.environment()))


def test_commands_start_no_worker(chaos):
    chaos.client.start("Chain", {"steps": 1, "seconds": 0})
    for words in (
        ["routes"],
        ["durable", "list"],
        ["durable", "start", "Chain", "--wait", "--timeout", "2", "--input", '{"steps": 1, "seconds": 0}'],
    ):
        group = chaos.flask(*words)
        group.wait()
        assert "Traceback" not in group.text()
        assert chaos.worker_rows() == {}
    assert chaos.ledger("began") == []


def test_a_child_forked_by_a_serving_process_gets_no_worker(chaos):
    app = chaos.folder / "chaos_app.py"
    text = """
@app.get("/fork")
def fork():
    import multiprocessing
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,), daemon=True)
    child.start()
    return str(child.pid)


if __name__"""
    app.write_text(app.read_text().replace("\nif __name__", text))
    group = chaos.flask_run()
    wait_until(lambda: has_one_worker(chaos) and chaos.answers(), "one worker")
    child = int(chaos.request("GET", "/fork")[1])
    assert chaos.start_over_http(20) == {202: 20}
    wait_until(lambda: chaos.unfinished() == 0, "the work is done")
    assert is_alive(child)
    assert set(chaos.worker_rows().values()) == {group.pid}


def test_functions_that_a_slow_import_registers_late_are_known_to_the_worker(chaos):
    """A worker that begins in the middle of the import would fail their calls as unknown."""
    for number in range(8):
        chaos.client.start("Fan", {"steps": 4, "seconds": 0.5}, instance_id=f"order-{number}")
    words: list[list[str]] = [["-m", "gunicorn", "-w", "1", "-b", f"127.0.0.1:{chaos.port}", "--no-control-socket", "chaos_app:app"]]
    words.append(["-m", "flask", "--app", "chaos_app", "run", "--port", str(chaos.port)])
    app = chaos.folder / "chaos_app.py"
    group = chaos.worker()
    for server in words:
        wait_until(chaos.holders, "activities are running")
        chaos.kill(group)
        app.write_text(app.read_text().replace("    durable.register(functions)", "    time.sleep(1.5)\n    durable.register(functions)"))
        group = chaos.begin(*server)
    wait_until(lambda: chaos.unfinished() == 0, "the work is done")
    chaos.settle("slow import", "kill -9", 8, repeats=64)


TWO_APPS = """
import os
import chaos_app

chaos_app.durable.start_worker()
assert chaos_app.durable.client.count() == 0
second, _ = chaos_app.make_app(os.environ["CHAOS_FOLDER"], TESTING=True)
second.run(port=int(os.environ["CHAOS_PORT"]))
"""


def locks_on(path):
    """Processes that hold a lock on a file."""
    node = os.stat(path).st_ino
    with open("/proc/locks") as lines:
        held = [line.split() for line in lines if "->" not in line]
    return {int(words[4]) for words in held if int(words[5].rpartition(":")[2]) == node}


@pytest.mark.skipif(not os.path.exists("/proc/locks"), reason="the locks of processes cannot be seen here")
@pytest.mark.parametrize("words", [[], ["--preload"]], ids=["plain", "preload"])
def test_each_process_holds_locks_of_its_own_on_the_sqlite_file(chaos, words):
    """A child that inherits an open connection believes that it has its parent's locks, and another process may delete the log under it."""
    site = chaos.gunicorn(*words, workers=2)
    wait_until(lambda: len(chaos.live_workers()) == 2, "two workers")
    wait_until(lambda: locks_on(chaos.database) >= site.children(), "each holds the file")
    assert locks_on(f"{chaos.database}-shm") >= site.children()
    assert locks_on(f"{chaos.database}-workers") == site.children()


@pytest.mark.skipif(not os.path.exists("/proc/locks"), reason="the locks of processes cannot be seen here")
def test_a_second_app_on_the_same_file_leaves_the_locks_of_the_first(chaos):
    code = "import chaos_app, os; chaos_app.make_app(os.environ['CHAOS_FOLDER'], TESTING=True); import waitress; waitress.serve(chaos_app.app, port=int(os.environ['CHAOS_PORT']))"
    code = code.replace(
        "import chaos_app, os;", "import chaos_app, os; chaos_app.durable.start_worker(); assert chaos_app.durable.client.count() == 0;"
    )
    pytest.importorskip("waitress")
    group = chaos.begin("-c", code)
    wait_until(chaos.answers, "it serves")
    assert locks_on(chaos.database) == {group.pid}
    assert chaos.request("GET", PREFIX)[0] == 200
