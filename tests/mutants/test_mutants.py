"""Deliberately wrong variants of the package, each of which some test must catch.

Every mutant changes a few characters of a copy of the package and runs the tests that are about the rule it breaks; it is caught when one
of them fails. Run alone with ``pytest -m mutants``; the table of what was caught by what is printed at the end of each case with ``-s``.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import flask_durable

TESTS = Path(__file__).parents[1]

pytestmark = pytest.mark.mutants


@dataclass(frozen=True)
class Mutant:
    """One wrong variant.

    Args:
        name: what is wrong with it.
        module: the file that is changed.
        right: the text that stands there, exactly once.
        wrong: what takes its place.
        tests: where to look for the test that catches it.
    """

    name: str
    module: str
    right: str
    wrong: str
    tests: tuple[str, ...]


MUTANTS = [
    Mutant(
        "events are delivered last in, first out",
        "core/mailbox.py",
        "kept.popleft()[1].data",
        "kept.pop()[1].data",
        ("core/test_mailbox.py", "core/test_execution.py"),
    ),
    Mutant(
        "the newest wait is served first",
        "core/mailbox.py",
        "task = next(iter(fresh))",
        "task = next(reversed(fresh))",
        ("core/test_mailbox.py", "core/test_execution.py"),
    ),
    Mutant(
        "a wait that lost a race still takes events",
        "core/mailbox.py",
        "            self._fresh.get(task.folded, {}).pop(task, None)\n            if task.completion",
        "            if task.completion",
        ("core/test_mailbox.py", "core/test_execution.py"),
    ),
    Mutant(
        "when_any is won by the first in the list",
        "core/tasks.py",
        "self.complete(min(done, key=_completion))",
        "self.complete(done[0])",
        ("core/test_tasks.py", "core/test_execution.py"),
    ),
    Mutant(
        "when_all raises the failure that stands first in the list",
        "core/tasks.py",
        "first = min(failed, key=_completion)",
        "first = failed[0]",
        ("core/test_tasks.py", "core/test_execution.py"),
    ),
    Mutant(
        "UUIDs do not depend on the generation",
        "core/context.py",
        "return derived_uuid(self.execution_id, self._uuids)",
        "return derived_uuid(self.instance_id, self._uuids)",
        ("core/test_context.py", "core/test_execution.py", "scenarios/test_generations.py"),
    ),
    Mutant(
        "unread events are dropped at continue-as-new",
        "core/execution.py",
        "carried = tuple(context._mailbox.unread()) if keeps_events else ()",
        "carried: tuple[EventRaised, ...] = ()",
        ("core/test_execution.py", "scenarios/test_generations.py"),
    ),
    Mutant(
        "events of the very batch that continues as new are dropped",
        "core/execution.py",
        "late = tuple(event for event in rest if isinstance(event, EventRaised))",
        "late: tuple[EventRaised, ...] = ()",
        ("core/test_execution.py", "scenarios/test_generations.py"),
    ),
    Mutant(
        "terminate does not reach the children",
        "storage/instances.py",
        "family = self._family(record, self._open_children) if command.recursive else [record]\n        for each in family:\n            self._terminate",
        "family = [record]\n        for each in family:\n            self._terminate",
        ("scenarios/test_control.py", "scenarios/test_children.py", "storage/test_store_contract.py"),
    ),
    Mutant(
        "rewind leaves failed children as they are",
        "storage/rewinds.py",
        "                return child\n",
        "                return None\n",
        ("scenarios/test_rewind.py",),
    ),
    Mutant(
        "a repeated event with the same key counts again",
        "storage/event_keys.py",
        "return self._sql.row(text, (self._hub, instance_id, dedup_key)) is not None",
        "return False",
        ("storage/test_event_keys.py", "scenarios/test_event_keys.py"),
    ),
    Mutant(
        "outcomes are matched by number alone",
        "core/execution.py",
        "if isinstance(task, kind):",
        "if task is not None:",
        ("core/test_execution.py",),
    ),
    Mutant(
        "a changed name goes unnoticed in replay",
        "core/actions.py",
        "return asked.task_id == recorded.task_id and asked.name == recorded.name",
        "return asked.task_id == recorded.task_id",
        ("core/test_actions.py", "core/test_execution.py"),
    ),
    Mutant(
        "a policy makes one attempt too many",
        "core/retry.py",
        "if attempt >= self.max_number_of_attempts or",
        "if attempt > self.max_number_of_attempts or",
        ("core/test_retry.py", "scenarios/test_calls.py"),
    ),
    Mutant(
        "messages of a suspended instance are processed",
        "storage/inbox.py",
        "CASE WHEN status <> 'Running' OR parked_reason IS NOT NULL THEN ready_at",
        "CASE WHEN status = 'Pending' OR parked_reason IS NOT NULL THEN ready_at",
        ("storage/test_store_contract.py", "scenarios/test_control.py"),
    ),
    Mutant(
        "a late result revives an ended instance",
        "storage/inbox.py",
        "AND status IN ('Pending', 'Running', 'Suspended')",
        "AND status <> 'Nothing'",
        ("storage/test_store_contract.py", "scenarios/test_control.py"),
    ),
    Mutant(
        "a rewind repeats successes",
        "core/rewind.py",
        "if isinstance(recorded.event, _Outcome) and not",
        "if isinstance(recorded.event, TimerFired) and not",
        ("core/test_rewind.py", "core/test_rewind_programs.py"),
    ),
    Mutant(
        "a rewind drops what came after the failure in the history",
        "core/blame.py",
        "self.seen_at = self._length()",
        "self.seen_at = 2",
        ("core/test_rewind.py", "core/test_rewind_programs.py"),
    ),
    Mutant(
        "a rewind also repeats failures that were handled",
        "core/blame.py",
        "if each.is_later_than(sound_until) and each not in blamed]",
        "if each not in blamed]",
        ("core/test_rewind.py", "scenarios/test_rewind.py"),
    ),
    Mutant(
        "a rewound call with retries has no new attempts",
        "core/tasks.py",
        "self._attempt, self.began = 1, now",
        "self.began = now",
        ("core/test_rewind.py", "core/test_rewind_programs.py"),
    ),
    Mutant(
        "what comes after a failure in the same batch is lost",
        "core/execution.py",
        "turn.undelivered = len(events) - index",
        "turn.undelivered = 0",
        ("core/test_rewind.py",),
    ),
    Mutant(
        "a failed instance does not keep late results",
        "storage/inbox.py",
        "'Suspended', 'Failed') AND execution_id",
        "'Suspended') AND execution_id",
        ("storage/test_rewinds.py", "scenarios/test_rewind.py"),
    ),
    Mutant(
        "a worker whose row is gone may still commit",
        "storage/workers.py",
        'return self._sql.now_unless("FROM durable_worker WHERE worker_id = ?" + self._sql.for_share, (worker_id,), lost)',
        "return self._sql.now()",
        ("storage/test_store_contract.py", "scenarios/test_workers.py", "runtime/test_engine.py"),
    ),
    Mutant(
        "replayed code is told that it is not replaying",
        "core/execution.py",
        "self._set_time(at, is_replaying=True)",
        "self._set_time(at, is_replaying=False)",
        ("core/test_execution.py", "core/test_context.py"),
    ),
    Mutant(
        "results of the generation before reach the new one",
        "storage/inbox.py",
        "'Suspended', 'Failed') AND execution_id = ?\"",
        "'Suspended', 'Failed') AND ? <> ''\"",
        ("storage/test_store_contract.py", "scenarios/test_generations.py"),
    ),
    Mutant(
        "a key may do everything",
        "access.py",
        "(key is None or permission not in key.permissions)",
        "(key is None)",
        ("http/test_keys.py",),
    ),
    Mutant(
        "the search for a key ends at the first that fits",
        "keys.py",
        "                found = entry",
        "                return entry",
        ("test_keys.py",),
    ),
    Mutant(
        "one request more may wait",
        "http/waiting.py",
        "self._taken >= self._places",
        "self._taken > self._places",
        ("http/test_limits.py",),
    ),
    Mutant(
        "retention takes children from under their parent",
        "storage/retention.py",
        "if each.parent_instance_id not in parents",
        "if True",
        ("storage/test_retention.py",),
    ),
    Mutant(
        "a turn is written whatever has become of its instance",
        "storage/turns.py",
        'AND execution_id = ? AND sequence = ? AND worker_id = ?"',
        "AND execution_id = ? AND ? >= 0 AND ? <> ''\"",
        ("simulation/test_simulation.py",),
    ),
    Mutant(
        "a result that was given up is taken all the same",
        "runtime/holdings.py",
        "        if not self._in_flight.remove(item):\n",
        "        if not self._in_flight.remove(item) and not item.instance_id:\n",
        ("runtime/test_holdings.py",),
    ),
    Mutant(
        "an outcome that comes again is written into the history again",
        "core/execution.py",
        "if isinstance(event, IGNORED) or self._is_unasked(event):",
        "if isinstance(event, IGNORED):",
        ("core/test_execution.py",),
    ),
    Mutant(
        "messages come in another order",
        "storage/inbox.py",
        "sorted(keyed, key=lambda pair: pair[0])",
        "sorted(keyed, key=lambda pair: pair[0], reverse=True)",
        ("simulation/test_simulation.py",),
    ),
    Mutant(
        "results of a turn that is dropped are dropped too",
        "runtime/holdings.py",
        "        self.foreign.extend(commit.results)\n",
        "",
        ("simulation/test_simulation.py",),
    ),
    Mutant(
        "a reaper forgets the instances of the dead",
        "storage/workers.py",
        "UPDATE durable_instance SET worker_id = NULL WHERE hub = ? AND worker_id = ?",
        "UPDATE durable_instance SET worker_id = NULL WHERE hub = ? AND worker_id = ? AND 1 = 0",
        ("simulation/test_simulation.py",),
    ),
    Mutant(
        "a span tells the text of an exception",
        "telemetry.py",
        "record_exception=False",
        "record_exception=True",
        ("scenarios/test_secrets.py",),
    ),
]


@pytest.fixture(params=MUTANTS, ids=lambda mutant: mutant.name.replace(" ", "-"))
def mutant(request):
    return request.param


def test_the_mutant_is_caught(mutant, tmp_path):
    copy = tmp_path / "flask_durable"
    shutil.copytree(Path(flask_durable.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    path = copy / mutant.module
    text = path.read_text()
    assert text.count(mutant.right) == 1, f"{mutant.module} no longer says {mutant.right!r} just once: write the mutant anew"
    path.write_text(text.replace(mutant.right, mutant.wrong))
    result = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-x",
            "-q",
            "-p",
            "no:cacheprovider",
            "-n0",
            "-c",
            str(TESTS.parent / "pyproject.toml"),
            *(str(TESTS / each) for each in mutant.tests),
        ],
        cwd=tmp_path,  # the first place where it looks for packages
        env={**os.environ, "PYTHONPATH": str(tmp_path), "FLASK_DURABLE_TEST_POSTGRES": "", "FLASK_DURABLE_TEST_MYSQL": ""},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    caught = re.findall(r"^(?:FAILED|ERROR) (\S+)", result.stdout, re.MULTILINE)
    assert result.returncode == 1, f"no test caught it: {result.stdout[-2000:]}{result.stderr[-2000:]}"
    assert caught
    print(f"\n{mutant.name}: caught by {caught[0].rpartition('tests/')[2]}")  # noqa: T201 - the table is what the run is for
