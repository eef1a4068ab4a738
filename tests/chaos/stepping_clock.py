"""A wall clock that steps, for processes that are started with it: every call of the C library that tells the time says another one."""

from __future__ import annotations

import shutil
import struct
import subprocess
import tempfile
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_suffix(".c")


class SteppingClock:
    """The clock of the processes that are started with its environment; clocks that only tell how time passes are left alone."""

    def __init__(self) -> None:
        compiler = shutil.which("cc")
        if compiler is None:
            pytest.skip("there is no C compiler on this machine, with which a clock that steps is made")
        self._folder = Path(tempfile.mkdtemp(prefix="durable-clock-"))
        self._folder.chmod(0o755)  # a database server may be another user
        self._offset = self._folder / "offset"
        library = self._folder / "clock.so"
        words = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE), "-ldl"]
        subprocess.run(words, check=True, capture_output=True, text=True)
        self._offset.write_bytes(struct.pack("=q", 0))
        self._offset.chmod(0o644)
        self.environment = {"LD_PRELOAD": str(library), "STEPPING_CLOCK": str(self._offset)}

    def step_to(self, seconds: float) -> None:
        """From now on it is so many seconds ahead of the true time."""
        with self._offset.open("r+b", buffering=0) as file:
            file.write(struct.pack("=q", round(seconds * 1e6)))

    def close(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
