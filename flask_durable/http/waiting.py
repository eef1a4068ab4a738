"""Waiting: how many requests of this process may be held open until an orchestration ends."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from flask_durable.http.errors import ApiError


class WaitingRoom:
    """Places for requests that wait; each takes a thread of the server, and the last ones must stay free for requests that do not wait (S9).

    Args:
        places: so many requests may wait at the same time.
        retry_after: seconds after which one that found no place should try again.
    """

    def __init__(self, places: int, retry_after: int) -> None:
        self._places = places
        self._retry_after = retry_after
        self._taken = 0
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """Take a place for as long as the context lasts.

        Raises:
            ApiError: 429, there is none; nothing was started.
        """
        with self._lock:
            if self._taken >= self._places:
                raise ApiError(
                    429,
                    f"At most {self._places} requests may wait at the same time (DURABLE_MAX_WAITING_REQUESTS); nothing was started. "
                    "Try again later, or start without timeout and ask for the status",
                    headers={"Retry-After": str(max(1, self._retry_after))},
                )
            self._taken += 1
        try:
            yield
        finally:
            with self._lock:
                self._taken -= 1
