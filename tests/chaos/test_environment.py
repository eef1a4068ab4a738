"""A wrong environment (F22): what starts there ends at once with a sentence that says what to do, and touches nothing; put right, all goes on."""

from __future__ import annotations

import os
import sqlite3
import stat

import pytest
from backends import BACKENDS
from chaos_harness import wait_until
from fault_harness import execute

pytestmark = pytest.mark.chaos
COUNT = 10


def refuse(site, *sentences):
    """Neither a worker nor a server begins, both say so at once, and nobody has worked."""
    groups = [site.flask("durable", "worker"), site.flask("run", "--port", str(site.port))]
    for group in groups:
        assert group.wait(30) != 0
        assert all(sentence in group.text() for sentence in sentences), group.text()
    assert "Traceback" not in groups[0].text()
    assert site.ledger("began") == []


def go_on(site, fault):
    site.worker()
    site.wait_for_all(COUNT)
    site.settle(f"flask durable worker, flask run, {site.backend}", f"F22 {fault}", COUNT, repeats=0)


def test_a_schema_of_another_version_is_refused(make_site):
    site = make_site()
    site.start(COUNT)
    for change, cure in ((-1, "flask durable db upgrade"), (1, "Install the newer flask-durable")):
        execute(site.url, "UPDATE durable_schema SET version = version + ?", change)
        site.kills += 2
        refuse(site, "The database does not fit", cure)
        execute(site.url, "UPDATE durable_schema SET version = version - ?", change)
    go_on(site, "older, newer schema")


def test_a_table_that_is_missing_is_refused(make_site):
    site = make_site()
    site.start(COUNT)
    execute(site.url, "ALTER TABLE durable_worker RENAME TO durable_away")
    site.kills = 2
    refuse(site, "durable_worker of version")
    execute(site.url, "ALTER TABLE durable_away RENAME TO durable_worker")
    go_on(site, "a table is missing")


@pytest.mark.skipif(os.geteuid() == 0 and not os.path.exists("/usr/bin/setpriv"), reason="a process of root may write everything here")
def test_a_sqlite_file_that_may_not_be_written_is_refused(make_site_on, tmp_path):
    folder = tmp_path / "owned"
    folder.mkdir()
    site = make_site_on(f"sqlite:///{folder}/durable.db")
    site.start(COUNT)
    file = folder / "durable.db"
    for path in (folder, file):
        mode = path.stat().st_mode
        path.chmod(mode & ~stat.S_IWUSR)
        site.kills += 1
        group = worker_without_privileges(site)
        assert group.wait(30) != 0
        assert "DURABLE_DATABASE" in group.text(), (path, group.text())
        assert any(words in group.text() for words in ("a file that this process may create and write", "readonly database")), (path, group.text())
        assert "Traceback" not in group.text()
        path.chmod(mode)
    assert site.ledger("began") == []
    go_on(site, "no right to write")
    with sqlite3.connect(file) as found:
        assert found.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def worker_without_privileges(site):
    """A worker to which the permissions of files apply, as they do to everybody but root."""
    words = ["-m", "flask", "--app", "fault_app", "durable", "worker"]
    if os.geteuid() != 0:
        return site.begin(*words)
    return site.begin("--inh-caps=-all", "--bounding-set=-all", site.python, *words, program="/usr/bin/setpriv")


@pytest.mark.parametrize("backend", [name for name in BACKENDS if name == "postgres"], indirect=True)
def test_a_role_that_may_not_write_is_refused(make_site_on, make_postgres, backend):
    server = make_postgres()
    execute(server.url, "CREATE ROLE reader LOGIN")
    site = make_site_on(server.url)
    site.start(COUNT)
    execute(server.url, "GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader")
    site.kills = 1
    group = site.flask("durable", "worker", CHAOS_DATABASE=server.url.replace("chaos@", "reader@"))
    assert group.wait(40) != 0
    assert "permission denied" in group.text(), group.text()
    assert "Traceback" not in group.text()
    assert site.ledger("began") == []
    go_on(site, "no right to write")


@pytest.mark.parametrize("backend", [name for name in BACKENDS if name != "mysql"], indirect=True)
def test_two_apps_on_one_database_leave_each_other_alone(make_site):
    """The same task hub by mistake: an app that does not know a function leaves it to the one that does."""
    site = make_site()
    (site.folder / "other_app.py").write_text(
        "import os\nfrom flask import Flask\nfrom flask_durable import FlaskDurable\n"
        "app = Flask('other_app', instance_path=os.environ['CHAOS_FOLDER'])\n"
        "app.config['DURABLE_DATABASE'] = os.environ['CHAOS_DATABASE']\ndurable = FlaskDurable(app)\n\n"
        "@durable.orchestrator\ndef other(ctx, value):\n    return value\n    yield\n"
    )
    other = site.begin("-m", "flask", "--app", "other_app", "durable", "worker")
    wait_until(lambda: other.pid in site.worker_rows().values(), "the other app has a worker")
    site.worker()
    wait_until(lambda: len(site.live_workers()) == 2, "both have a worker")
    site.kills = 1
    site.start(40, steps=3)
    site.wait_for_all(40)
    assert {effect.pid for effect in site.ledger("began")} == set(site.worker_rows().values()) - {other.pid}
    assert "Traceback" not in other.text()
    site.settle(f"2 apps, {site.backend}", "F22 two apps on one database", 40, repeats=0)
