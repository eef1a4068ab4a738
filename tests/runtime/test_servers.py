"""Which part a process plays; the real servers are in tests/chaos/test_servers.py."""

from __future__ import annotations

import sys
import types

import pytest

from flask_durable.runtime import servers


@pytest.fixture
def uwsgi(monkeypatch):
    """The module that uWSGI builds into its processes, as a master that is about to fork sees it."""
    module = types.ModuleType("uwsgi")
    module.worker_id = lambda: 0
    module.has_threads = 1
    monkeypatch.setitem(sys.modules, "uwsgi", module)
    return module


def test_an_ordinary_process_is_none_of_a_servers():
    asked = (
        servers.is_gunicorn_master,
        servers.is_gunicorn_worker,
        servers.is_reloader_parent,
        servers.is_uwsgi_master,
        servers.is_uwsgi_without_threads,
        servers.is_loading,
    )
    assert [ask() for ask in asked] == [False] * 6


def test_the_master_of_uwsgi_is_the_process_without_a_number(uwsgi):
    assert servers.is_uwsgi_master()
    uwsgi.worker_id = lambda: 1
    assert not servers.is_uwsgi_master()


def test_uwsgi_says_whether_it_lets_threads_run(uwsgi):
    assert not servers.is_uwsgi_without_threads()
    uwsgi.has_threads = 0
    assert servers.is_uwsgi_without_threads()


def test_a_hook_of_the_apps_own_is_called_before_ours(uwsgi):
    called = []
    uwsgi.post_fork_hook = lambda: called.append("the app's")
    servers.on_uwsgi_fork(lambda: called.append("ours"))
    uwsgi.post_fork_hook()
    assert called == ["the app's", "ours"]


def test_a_module_that_happens_to_be_called_uwsgi_is_not_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "uwsgi", types.ModuleType("uwsgi"))
    servers.on_uwsgi_fork(lambda: None)
    assert not servers.is_uwsgi_master()
