"""The deterministic core: what an orchestration does, and nothing of how it is kept or run.

Laws of this package:

1. Standard library only, and of that nothing that does I/O, reads a clock, draws lots or starts threads.
2. Time comes in as a number with each turn; it is never asked for.
3. A warm execution and one replayed from history give equal turns.
4. Errors of user code become part of a turn; they are not raised at the engine.
"""
