"""Wakeups: a thread that hears of what other processes commit, where the database tells of it, and makes the engine look.

What is heard is a hint. Whatever is lost, the engine finds by looking, seldom while the connection surely works and often while it may not: a
message to itself, sent on another connection, tells from time to time. That is also how a proxy is noticed that accepts to listen and hands
nothing on (PgBouncer with transaction pooling).
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from flask_durable.errors import DurableError
from flask_durable.logs import get_logger
from flask_durable.runtime.polling import QUIET_SECONDS
from flask_durable.runtime.sightings import Sightings
from flask_durable.runtime.surroundings import Surroundings
from flask_durable.storage.interface import Listening, Store

logger = get_logger("flask_durable.wakeups")

PROBE_SECONDS = 60.0
"""After so long without a word, the worker asks itself whether it would hear one."""

ANSWER_SECONDS = 3.0
SHORTEST_PAUSE = 0.25
LONGEST_PAUSE = 60.0
_PROBE = "probe "


class Wakeups:
    """Hears for one worker.

    Args:
        sightings: learn whether work of others is surely told of.
        sign: makes the engine look.
        worker_id: the worker's present id; what it tells others itself is not for it.
    """

    def __init__(
        self, store: Store, sightings: Sightings, sign: Callable[[], None], worker_id: Callable[[], str], surroundings: Surroundings
    ) -> None:
        self._store = store
        self._sightings = sightings
        self._sign = sign
        self._worker_id = worker_id
        self._surroundings = surroundings
        self._is_stopped = threading.Event()
        self._listening: Listening | None = None
        self._has_warned = False
        self._thread: threading.Thread | None = None
        self.connection_count = 0

    def start(self) -> None:
        """Begin to listen; nothing where the database does not tell."""
        if self._store.can_listen():
            self._thread = self._surroundings.make_thread(target=self._run, name="durable-listener", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End; returns when the connection is closed."""
        self._is_stopped.set()
        listening = self._listening
        if listening is not None:
            listening.interrupt()
        if self._thread is not None and self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        pause = SHORTEST_PAUSE
        while not self._is_stopped.is_set():
            try:
                if self._hear():
                    pause = SHORTEST_PAUSE
            except DurableError as error:
                self._warn(str(error))
            except Exception:
                logger.exception("Listening failed; it begins anew")
            self._is_stopped.wait(pause)
            pause = min(pause * 2, LONGEST_PAUSE)

    def _hear(self) -> bool:
        """Listen for as long as that works; returns whether it ever did."""
        self._listening = listening = self._store.listen()
        self.connection_count += 1
        has_heard = False
        try:
            self._sign()  # nobody told of what was committed before
            while not self._is_stopped.is_set():
                if not self._hears_itself(listening):
                    if not self._is_stopped.is_set():
                        self._warn("what is sent does not arrive; is there a PgBouncer with transaction pooling?")
                    return has_heard
                if not has_heard:
                    has_heard, self._has_warned, self._sightings.is_told = True, False, True
                    logger.info("The database tells of work of other processes")
                self._listen(listening)
            return has_heard
        except DurableError as error:
            if has_heard:
                self._warn(str(error))
                return True
            raise
        finally:
            self._listening = None
            self._sightings.is_told = False
            listening.close()
            self._sign()

    def _hears_itself(self, listening: Listening) -> bool:
        token = _PROBE + self._surroundings.new_id()
        self._store.tell(token)
        clock = self._surroundings.clock
        deadline = clock.monotonic() + ANSWER_SECONDS
        while not self._is_stopped.is_set() and (left := deadline - clock.monotonic()) > 0:
            told = listening.wait(left)
            self._hand_on(told)
            if token in told:
                return True
        return False

    def _listen(self, listening: Listening) -> None:
        """Hand on what is told until nothing has been for a while."""
        while not self._is_stopped.is_set():
            told = listening.wait(PROBE_SECONDS)
            if not told:
                return
            self._hand_on(told)

    def _hand_on(self, told: list[str]) -> None:
        own = self._worker_id()
        if any(text != own and not text.startswith(_PROBE) for text in told):
            self._sign()

    def _warn(self, why: str) -> None:
        if not self._has_warned:
            self._has_warned = True
            logger.warning(
                "The database does not tell of work of other processes (%s); it is looked for at least every %g s instead", why, QUIET_SECONDS
            )
