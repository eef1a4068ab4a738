"""What the other instances get while orchestrators misbehave; prints one JSON line per case.

    python tests/benchmarks/misbehaving.py --case endless --copies 1 --window 60 --rounds 3

Callers start orchestrations of three activities, one after the other, and wait for each. Windows without and with misbehaving orchestrators
take turns; a disturbed window begins with their start. The line says how many orchestrations ended a second in both, their ratio, how long the
longest pause between two ends was, and what became of those that misbehaved.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any

from flask import Flask

from flask_durable import FlaskDurable

HUNDRED_MB = 100 * 1024 * 1024


class RudeError(Exception):
    """Its text cannot be made."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


def endless(ctx: Any) -> Any:
    while True:
        pass
    yield


def stubborn(ctx: Any) -> Any:
    """Endless, and it catches whatever is raised in it."""
    while True:
        try:
            for _ in range(1000):
                pass
        except BaseException:  # noqa: BLE001 - that is the point
            continue
    yield


def garbage(ctx: Any) -> Any:
    while True:
        try:
            yield 5
        except ValueError:
            continue


def recursive(ctx: Any) -> Any:
    def deeper(depth: int) -> int:
        return deeper(depth + 1) + 1

    return deeper(0)
    yield


def recursive_yields(ctx: Any) -> Any:
    yield from recursive_yields(ctx)


def huge_output(ctx: Any) -> Any:
    return "x" * HUNDRED_MB


def huge_list(ctx: Any) -> Any:
    return ["x" * 1024] * (HUNDRED_MB // 1024)


def many_activities(ctx: Any) -> Any:
    yield ctx.when_all([ctx.call_activity("hello", number) for number in range(100_001)])


def fan_out(ctx: Any) -> Any:
    """Large, and within the limits."""
    yield ctx.when_all([ctx.call_activity("hello", number) for number in range(50_000)])


def rude(ctx: Any) -> Any:
    raise RudeError


def sleeping(ctx: Any) -> Any:
    time.sleep(45)
    return "awake"


CASES: dict[str, Callable[[Any], Any]] = {
    each.__name__: each
    for each in (endless, stubborn, garbage, recursive, recursive_yields, huge_output, huge_list, many_activities, fan_out, rude, sleeping)
}


def huge_input(durable: FlaskDurable) -> str:
    """A caller that hands over 100 MB."""
    try:
        return durable.client.start("hello_sequence", "x" * HUNDRED_MB)
    except ValueError as error:
        return str(error)[:120]


def make_app(folder: str, args: argparse.Namespace) -> FlaskDurable:
    """An app with a good orchestrator and all the bad ones."""
    app = Flask("bench", instance_path=folder)
    app.config.update(TESTING=True, DURABLE_DATABASE=args.database or f"sqlite:///{folder}/bench.db")
    if args.turn_timeout:
        app.config["DURABLE_TURN_TIMEOUT"] = args.turn_timeout
    durable = FlaskDurable(app)

    @durable.activity
    def hello(city: Any) -> str:
        return f"Hello {city}"

    @durable.orchestrator
    def hello_sequence(ctx: Any) -> Any:
        for city in ("Tokyo", "Seattle", "London"):
            yield ctx.call_activity(hello, city)

    for function in CASES.values():
        durable.orchestrator(function)
    return durable


class Callers:
    """Good callers in threads; ``ends`` are the times at which their orchestrations ended."""

    def __init__(self, durable: FlaskDurable, count: int) -> None:
        self._durable = durable
        self._is_over = threading.Event()
        self.ends: list[float] = []
        self._threads = [threading.Thread(target=self._call, daemon=True) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def _call(self) -> None:
        client = self._durable.client
        while not self._is_over.is_set():
            client.wait_for_completion(client.start("hello_sequence"), timeout=120)
            self.ends.append(time.monotonic())

    def window(self, seconds: float) -> tuple[float, float]:
        """How many ended a second, and the longest pause between two ends."""
        began = time.monotonic()
        time.sleep(seconds)
        over = time.monotonic()
        ends = [end for end in self.ends if began <= end <= over]
        points = [began, *ends, over]
        return len(ends) / (over - began), max(after - before for before, after in itertools.pairwise(points))

    def stop(self) -> None:
        """Let them end."""
        self._is_over.set()
        for thread in self._threads:
            thread.join()


def measure(durable: FlaskDurable, case: str, args: argparse.Namespace) -> dict[str, Any]:
    """Interleaved windows without and with the case."""
    callers = Callers(durable, args.callers)
    callers.window(2)
    calm, disturbed, pauses, ids = [], [], [], []
    for _ in range(args.rounds):
        calm.append(callers.window(args.window)[0])
        if case == "huge_input":
            threading.Thread(target=huge_input, args=(durable,), daemon=True).start()
        else:
            for _ in range(args.copies):  # from a thread: the start shares its commit with the first turn, which may take for ever
                threading.Thread(target=lambda: ids.append(durable.client.start(case)), daemon=True).start()
        rate, pause = callers.window(args.window)
        disturbed.append(rate)
        pauses.append(pause)
    callers.stop()
    statuses = [durable.client.get_status(each) for each in ids]
    line: dict[str, Any] = {"case": case, "copies": args.copies, "window_s": args.window, "rounds": args.rounds}
    line |= {"calm_per_s": round(statistics.median(calm), 1), "disturbed_per_s": round(statistics.median(disturbed), 1)}
    line |= {"ratio": round(sum(disturbed) / sum(calm), 3), "longest_pause_s": round(max(pauses), 2)}
    line["ends"] = sorted({f"{each.runtime_status}: {each.output}"[:160] for each in statuses if each is not None}) or huge_input(durable)
    return line


def main() -> None:
    """Measure one case, or all of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", default="all", choices=["all", "huge_input", *CASES])
    parser.add_argument("--copies", type=int, default=1)
    parser.add_argument("--window", type=float, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--callers", type=int, default=4)
    parser.add_argument("--turn-timeout", type=float, default=None)
    parser.add_argument("--database", default=None)
    args = parser.parse_args()
    for case in [*CASES, "huge_input"] if args.case == "all" else [args.case]:
        folder = tempfile.mkdtemp(prefix="flask-durable-bench-")
        durable = make_app(folder, args)
        try:
            durable.start_worker()
            sys.stdout.write(json.dumps(measure(durable, case, args)) + "\n")
            sys.stdout.flush()
        finally:
            durable._state().shut_down()
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
