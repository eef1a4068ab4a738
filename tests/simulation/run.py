"""Runs simulated seeds: ``python -m tests.simulation.run --first 0 --count 2000``; every failure is one line that reproduces it."""

from __future__ import annotations

import argparse
import logging
import sys
import time
import traceback
from collections import Counter
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from .checks import check
from .options import options_of
from .stores import close
from .surroundings import WrongError
from .world import World


def run_seed(seed: int, store: str | None = None, *, keeps_lines: bool = False) -> World:
    """Run one seed and check all that must hold afterwards."""
    world = World(seed, options_of(seed, store))
    world.truth.keeps_lines = keeps_lines
    try:
        finish(world)
    finally:
        close(world.truth._base)
    return world


def finish(world: World) -> None:
    """Run a world to its end, and check it."""
    world.run()
    if world.failure is not None:
        raise world.failure
    check(world)


def reproducer(seed: int, store: str | None = None) -> str:
    """The command that runs a seed again."""
    chosen = f" --store {store}" if store else ""
    return f"python -m tests.simulation.run --first {seed} --count 1{chosen} --trace  # {options_of(seed, store)}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--store", default=None)
    parser.add_argument("--faults", default=None, help="only these, with commas between them")
    parser.add_argument("--trace", action="store_true")
    parser.add_argument("--failures", type=int, default=10, help="stop after so many")
    args = parser.parse_args()
    if not args.trace:
        logging.disable(logging.CRITICAL)
    began, seen, failed = time.perf_counter(), Counter[str](), 0
    for seed in range(args.first, args.first + args.count):
        options = options_of(seed, args.store)
        if args.faults is not None:
            options = replace(options, faults=tuple(args.faults.split(",")))
        world = World(seed, options)
        world.truth.keeps_lines = args.trace
        try:
            finish(world)
        except (Exception, WrongError) as error:  # noqa: BLE001 - told, with what reproduces it
            failed += 1
            if args.trace:
                sys.stdout.write("\n".join(world.truth.lines) + "\n")
                traceback.print_exc()
            sys.stdout.write(f"FAILED seed {seed}: {type(error).__name__}: {str(error)[:300]}\n  again: {reproducer(seed, args.store)}\n")
            sys.stdout.flush()
            if failed >= args.failures:
                break
        close(world.truth._base)
        seen.update(world.truth.counts)
        seen["ticks"] += world.ticks
        seen["seeds"] += 1
    sys.stdout.write(f"{seen['seeds']} seeds, {failed} failed, {time.perf_counter() - began:.1f} s; {dict(seen)}\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
