"""Sightings: what this worker knows of the rest of its hub from its last look, so that what is periodic asks the database only with a reason."""

from __future__ import annotations

from flask_durable.storage.interface import Neighbour, Ready
from flask_durable.watchers import Watchers


class Sightings:
    """What the engine's thread sees at each look, for the other threads of the worker.

    Attributes:
        neighbours: the other workers, dead ones too until somebody has reaped them.
        is_left: whether work was due that nobody has and this worker does not take.
        is_told: whether work that others make is surely told of, so that looking for it is a precaution only.
    """

    def __init__(self, watchers: Watchers) -> None:
        self._watchers = watchers
        self.neighbours: tuple[Neighbour, ...] = ()
        self.is_left = False
        self.is_told = False

    def saw(self, ready: Ready) -> None:
        """The engine has looked."""
        self.neighbours = ready.neighbours
        self.is_left = ready.is_left
        # Other workers would not wake those who wait in this process.
        self._watchers.sees_all = ready.is_registered and not ready.neighbours
