"""Schemathesis against a real server process: every answer is documented, nothing malformed is taken, nothing crashes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import KEY, PREFIX, ServerMaker

SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")
SECONDS = int(os.environ.get("DURABLE_TEST_FUZZING_SECONDS", "12"))

# What no schema can say and is rightly refused: a token that nobody handed out, half of the waiting pair, one tag twice
EXCLUDED = "positive_data_acceptance"


@pytest.mark.slow
@pytest.mark.skipif(not SCHEMATHESIS.exists(), reason="schemathesis is not installed")
@pytest.mark.parametrize("keys", [(), (KEY,)], ids=["local", "keys"])
def test_every_answer_is_documented_and_nothing_malformed_is_taken(start_server: ServerMaker, tmp_path: Path, keys: tuple[str, ...]) -> None:
    headers = [f"--header=X-Api-Key: {key}" for key in keys]
    command = [
        str(SCHEMATHESIS),
        "run",
        f"{start_server(*keys)}{PREFIX}/openapi.json",
        f"--exclude-checks={EXCLUDED}",
        f"--max-time={SECONDS}",
        "--max-examples=30",
        "--seed=1",
        "--no-color",
        "--warnings=off",
        *headers,
    ]

    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=SECONDS * 5 + 60, check=False)

    assert done.returncode == 0, done.stdout[-6000:]
    log = (tmp_path / "server.log").read_text()
    assert "Traceback" not in log, log[-6000:]
