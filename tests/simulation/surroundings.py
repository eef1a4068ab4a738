"""What simulated workers find around them: virtual time, no threads, activities that run when the scheduler says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from flask_durable.core.execution import Execution
from flask_durable.errors import DurableError

if TYPE_CHECKING:
    from .world import SimWorker, World

SECOND = 1_000_000


class CrashError(BaseException):
    """The process of a simulated worker ends here: nothing catches this but the scheduler."""

    def __init__(self, worker: SimWorker) -> None:
        super().__init__(worker.number)
        self.worker = worker


class WrongError(BaseException):
    """Something does not hold that must; no code of workers takes it for an error of its own."""


class VirtualClock:
    """Time that goes on only when the scheduler moves it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.micros = 1_700_000_000 * SECOND

    def now(self) -> int:
        return self.micros

    def monotonic(self) -> float:
        return self.micros / SECOND

    def forward(self, micros: int) -> None:
        self.micros += micros


class NoThread:
    """A thread that is never run: the scheduler steps the engine in its place."""

    ident = None

    def __init__(self, **_: Any) -> None:
        return

    def start(self) -> None:
        return

    def is_alive(self) -> bool:
        return False


class SimEvent:
    """An event; while one waits for it, all others go on."""

    def __init__(self, worker: SimWorker) -> None:
        self._worker = worker
        self._is_set = False

    def set(self) -> None:
        self._is_set = True

    def is_set(self) -> bool:
        return self._is_set

    def wait(self, timeout: float | None = None) -> bool:
        is_over = self._worker.world.wait_until(lambda: self._is_set or self._worker.is_dead, timeout)
        if self._worker.is_dead:
            raise CrashError(self._worker)
        return is_over


class SimCloser:
    """Closes at once."""

    def close(self, execution: Execution) -> None:
        execution.close()

    def has(self, _thread: Any) -> bool:
        return False

    def stop(self, _seconds: float) -> bool:
        return True


class SimTicker:
    """Periodic calls; the scheduler makes those that are due."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._is_running = False
        self.ticks: list[list[Any]] = []

    def every(self, seconds: float, call: Callable[[], object]) -> None:
        micros = round(seconds * SECOND)
        self.ticks.append([self._world.clock.now() + micros, micros, call])

    def start(self) -> None:
        self._is_running = True

    def stop(self) -> None:
        self._is_running = False
        self.ticks = []

    def due(self) -> list[Any] | None:
        now = self._world.clock.now()
        return next((tick for tick in self.ticks if tick[0] <= now), None) if self._is_running else None

    def next_moment(self) -> int | None:
        return min((tick[0] for tick in self.ticks), default=None) if self._is_running else None

    def run(self, tick: list[Any]) -> None:
        tick[0] = self._world.clock.now() + tick[1]
        try:
            tick[2]()
        except DurableError as error:  # as with the real one, it is called again at its next time
            self._world.note("tick failed", type(error).__name__)
        except Exception as error:  # noqa: BLE001 - no simulated fault: the real one would only log it, so that it would never be seen
            self._world.fail(f"a tick failed: {type(error).__name__}: {error}")


class SimPool:
    """Activity calls that wait for the scheduler."""

    def __init__(self, size: int, run: Callable[[Any], None], **_: Any) -> None:
        self.size = size
        self._run = run
        self._items: list[Any] = []
        self.busy_count = 0
        self.stuck_count = 0

    def submit(self, item: Any) -> None:
        self._items.append(item)

    @property
    def can_begin(self) -> bool:
        return bool(self._items) and self.busy_count < self.size

    def begin(self, place: float) -> None:
        """Run one of the calls that wait."""
        item = self._items.pop(int(place * len(self._items)))
        self.busy_count += 1
        try:
            self._run(item)
        finally:
            self.busy_count -= 1

    def grow(self) -> None:
        return

    def drain(self) -> list[Any]:
        taken, self._items = self._items, []
        return taken

    def stop(self) -> None:
        return
