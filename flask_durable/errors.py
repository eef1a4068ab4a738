"""Every error the package raises, as one tree.

::

    DurableError
    ├── ConfigurationError                      wrong at start-up: names the key, the value, what is allowed
    ├── InvalidArgumentError (ValueError)       a caller's argument is wrong
    │   ├── PayloadTooLargeError                a payload is over its limit
    │   └── TypeMismatchError                   a value does not fit the type it is declared to have
    ├── NotRegisteredError (LookupError)        no such orchestrator or activity here
    ├── InstanceNotFoundError (LookupError)     no instance with that id
    ├── InstanceExistsError                     the id is in use
    ├── InstanceFinishedError                   the instance has ended, nothing can reach it
    ├── InstanceNotFinishedError                the operation needs an instance that has ended
    ├── InstanceNotFailedError                  only a failed instance can be rewound
    ├── NonDeterminismError                     the code no longer asks for what the history says
    ├── TaskFailedError                         (core/failure.py) raised at the yield; carries FailureDetails
    │   └── SubOrchestrationFailedError
    ├── TaskCancelledError                      the result of a cancelled task was asked for
    ├── TaskNotCompleteError                    the result of an open task was asked for
    ├── NonRetriableError                       (core/failure.py) raised by user code: no policy makes a further attempt
    ├── ActivityTimeoutError (TimeoutError)     an activity ran for longer than its timeout
    ├── ActivityLostError                       an at-most-once activity was begun by a worker that is gone
    ├── EventTimeoutError (TimeoutError)        an external event did not come in time
    ├── WaitTimeoutError (TimeoutError)         the instance did not get there in time
    ├── VersionMismatchError                    the instance's version is not one that this worker takes
    ├── StoreUnavailableError                   the database did not answer within the deadline
    │   ├── ConnectionsExhaustedError           all connections that this process may have were in use for that long
    │   └── OutcomeUnknownError                 and what was asked of it may have been carried out
    ├── SchemaVersionError                      the tables are missing, older or newer than this code
    ├── WorkerLostError                         internal: this worker's row is gone, its commits are refused
    ├── NotSupportedError (NotImplementedError) (azure/values.py) Azure's SDK has it, this package has not
    └── CorruptHistoryError                     a stored row cannot be read

Each class has a stable ``code`` that HTTP answers, the command line and logs use. This module imports nothing of the package, so that
everything else may import it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar


class DurableError(Exception):
    """Base of all errors of this package."""

    code: ClassVar[str] = "durable_error"


class ConfigurationError(DurableError):
    """A configuration value is wrong.

    Args:
        key: the configuration key.
        value: what was found (shown with ``repr``; pass a masked text for secrets).
        allowed: what is allowed, as a sentence fragment.
    """

    code = "configuration"

    def __init__(self, key: str, value: object, allowed: str) -> None:
        super().__init__(f"{key} = {value!r} is not valid: {allowed}")
        self.key = key
        self.value = value
        self.allowed = allowed


class InvalidArgumentError(DurableError, ValueError):
    """An argument is wrong; the message names it and says what is allowed."""

    code = "invalid_argument"


class PayloadTooLargeError(InvalidArgumentError):
    """A payload is over its limit.

    Args:
        what: which payload, for example ``"input"``.
        size: its size in bytes of UTF-8 JSON text.
        limit: the limit in bytes.
    """

    code = "payload_too_large"

    def __init__(self, what: str, size: int, limit: int) -> None:
        super().__init__(f"The {what} is {size} bytes of JSON; at most {limit} are allowed (DURABLE_MAX_PAYLOAD_BYTES and its kin)")
        self.what = what
        self.size = size
        self.limit = limit


class TypeMismatchError(InvalidArgumentError):
    """A value does not fit the type that it is declared to have; the message says where and why."""

    code = "type_mismatch"


class NotRegisteredError(DurableError, LookupError):
    """No orchestrator or activity of that name is registered.

    Args:
        kind: ``"orchestrator"`` or ``"activity"``.
        name: the name asked for.
        known: the names that are registered.
        fitting: what it should fit besides, as a phrase.
    """

    code = "not_registered"

    def __init__(self, kind: str, name: str, known: tuple[str, ...] = (), *, fitting: str = "") -> None:
        listed = ", ".join(sorted(known)[:20]) or "none"
        super().__init__(f"No {kind} named {name!r}{fitting and ' '}{fitting} is registered here. Registered: {listed}")
        self.kind = kind
        self.name = name
        self.known = known


class InstanceNotFoundError(DurableError, LookupError):
    """No instance has that id."""

    code = "instance_not_found"

    def __init__(self, instance_id: str) -> None:
        super().__init__(f"No instance has the id {instance_id!r}")
        self.instance_id = instance_id


class InstanceExistsError(DurableError):
    """The id is in use.

    Args:
        instance_id: the id.
        status: runtime status of the instance that has it.
    """

    code = "instance_exists"

    def __init__(self, instance_id: str, status: str) -> None:
        super().__init__(f"An instance with the id {instance_id!r} already exists; it is {status}")
        self.instance_id = instance_id
        self.status = status


class InstanceFinishedError(DurableError):
    """The instance has ended; events and commands no longer reach it."""

    code = "instance_finished"

    def __init__(self, instance_id: str, status: str) -> None:
        super().__init__(f"Instance {instance_id!r} has ended; it is {status}")
        self.instance_id = instance_id
        self.status = status


class InstanceNotFinishedError(DurableError):
    """The operation needs an instance that has ended."""

    code = "instance_not_finished"

    def __init__(self, instance_id: str, status: str, operation: str) -> None:
        super().__init__(f"Instance {instance_id!r} is {status}; {operation} needs one that has ended. Terminate it first")
        self.instance_id = instance_id
        self.status = status
        self.operation = operation


class InstanceNotFailedError(DurableError):
    """Only a failed instance can be rewound (REW-1)."""

    code = "instance_not_failed"

    def __init__(self, instance_id: str, status: str) -> None:
        super().__init__(f"Instance {instance_id!r} is {status}; only one that is Failed can be rewound")
        self.instance_id = instance_id
        self.status = status


class NonDeterminismError(DurableError):
    """The orchestrator's code asks for something else than its history says.

    Args:
        step: number of the call in the instance, 1 for the first.
        recorded: what the history has at that step, or None when it has nothing.
        asked: what the code asked for, or None when it asked for nothing.
        position: where the code stands, as a sentence without its full stop, or None.
    """

    code = "nondeterminism"

    def __init__(self, step: int, recorded: str | None, asked: str | None, position: str | None = None) -> None:
        super().__init__(
            f"Non-deterministic orchestrator at step {step}: the history says {recorded or 'nothing'}, the code asked for {asked or 'nothing'}. "
            f"{f'{position}. ' if position else ''}Likely causes: the orchestrator's code was changed while this instance was running; it depends on the clock, "
            "a random value, an environment variable or a database; it iterates over a set; the retry policy of a call, or of the activity it calls, "
            "was changed. Put back the code that this instance was started with, "
            "or branch on ctx.version"
        )
        self.step = step
        self.recorded = recorded
        self.asked = asked
        self.position = position


class TaskCancelledError(DurableError):
    """The result of a cancelled task was asked for."""

    code = "task_cancelled"


class TaskNotCompleteError(DurableError):
    """The result of a task that is still open was asked for."""

    code = "task_not_complete"


class ActivityTimeoutError(DurableError, TimeoutError):
    """An activity ran for longer than its timeout; it may still be running, and its result is dropped.

    Args:
        name: the activity's name.
        seconds: the timeout.
    """

    code = "activity_timeout"

    def __init__(self, name: str, seconds: float) -> None:
        super().__init__(
            f"Activity {name!r} did not end within its timeout of {seconds:g} s. Its code goes on in its thread; what it returns is dropped"
        )
        self.name = name
        self.seconds = seconds


class ActivityLostError(DurableError):
    """An at-most-once activity was begun by a worker that is gone: nobody knows whether it has run, and it is not begun again.

    Args:
        name: the activity's name.
    """

    code = "activity_lost"

    def __init__(self, name: str) -> None:
        super().__init__(
            f"Activity {name!r} was begun by a worker that is gone. It may or may not have run; it is registered at_most_once and is not begun again"
        )
        self.name = name


class EventTimeoutError(DurableError, TimeoutError):
    """An external event did not come in time.

    Args:
        name: the event's name as the orchestrator wrote it.
    """

    code = "event_timeout"

    def __init__(self, name: str) -> None:
        super().__init__(f"The external event {name!r} did not come in time")
        self.name = name


class WaitTimeoutError(DurableError, TimeoutError):
    """An instance did not reach the awaited status in time; the instance itself is unaffected."""

    code = "wait_timeout"

    def __init__(self, instance_id: str, awaited: str, seconds: float) -> None:
        super().__init__(f"Instance {instance_id!r} did not {awaited} within {seconds:g} s")
        self.instance_id = instance_id


class VersionMismatchError(DurableError):
    """The instance's version is not one that this worker takes, and the worker is told to fail such instances (VER-3)."""

    code = "version_mismatch"


class StoreUnavailableError(DurableError):
    """The database did not answer, or refused to write, within the deadline."""

    code = "store_unavailable"


class ConnectionsExhaustedError(StoreUnavailableError):
    """All connections that a process may have were in use until the deadline.

    Args:
        most: so many it may have for this purpose.
        seconds: so long it was waited for one.
    """

    code = "connections_exhausted"

    def __init__(self, most: int, seconds: float) -> None:
        super().__init__(
            f"All {most} connections to the database that this process may use here were busy for {seconds:.3g} s; DURABLE_MAX_CONNECTIONS allows more"
        )


class OutcomeUnknownError(StoreUnavailableError):
    """What was asked of the database may have been carried out or not: its answer was lost, and nobody could find out within the deadline.

    Args:
        result: what it came to, if it was carried out.
        message: another text.
    """

    code = "outcome_unknown"

    def __init__(self, result: object = None, message: str = "The database did not answer a COMMIT; look whether it was carried out") -> None:
        super().__init__(message)
        self.result = result


class SchemaVersionError(DurableError):
    """The tables are missing, or made by an older or newer version of this package.

    Args:
        found: the version found, None when there are no tables.
        expected: the version this code works with.
        missing: the tables that are not there, though the version says that they are.
    """

    code = "schema_version"

    def __init__(self, found: int | None, expected: int, missing: Sequence[str] = ()) -> None:
        if missing:
            cure = f"{', '.join(missing)} of version {found} cannot be seen. Restore what is gone from a backup, or let the user of DURABLE_DATABASE use it"
        elif found is None:
            cure = "the durable tables are missing. Run `flask durable db init`"
        elif found < expected:
            cure = f"the durable tables have version {found}, this code needs {expected}. Run `flask durable db upgrade`"
        else:
            cure = f"the durable tables have version {found}, this code knows only {expected}. Install the newer flask-durable that made them"
        super().__init__(f"The database does not fit: {cure}")
        self.found = found
        self.expected = expected


class WorkerLostError(DurableError):
    """This worker's row is gone: another worker took its work over, and its commits are refused."""

    code = "worker_lost"


class CorruptHistoryError(DurableError):
    """A stored row cannot be read.

    Args:
        instance_id: whose row it is.
        reason: what is wrong with it.
    """

    code = "corrupt_history"

    def __init__(self, instance_id: str, reason: str) -> None:
        super().__init__(f"The stored history of instance {instance_id!r} cannot be read: {reason}")
        self.instance_id = instance_id
        self.reason = reason
