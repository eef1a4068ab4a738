from __future__ import annotations

import inspect
from typing import Any

from flask_durable.core.position import position

from .driver import Driver


def line_of(function: Any, text: str) -> int:
    lines, first = inspect.getsourcelines(function)
    return first + next(number for number, line in enumerate(lines) if text in line)


def test_a_mismatch_names_file_and_line_where_the_code_waits() -> None:  # rule 2, B6
    def before(ctx: Any) -> Any:
        yield ctx.call_activity("a")

    def after(ctx: Any) -> Any:
        task = ctx.call_activity("b")
        yield task  # here

    error = Driver(before).replayed(after).nondeterminism
    assert error is not None
    assert error.position == f"The code is at {__file__}:{line_of(after, '# here')}, in after"
    assert f"the code asked for call_activity('b'). {error.position}. Likely causes" in str(error)


def test_the_position_is_that_of_the_innermost_code_of_the_author() -> None:  # B6
    def helper(ctx: Any) -> Any:
        yield ctx.call_activity("b")  # here

    def generator(ctx: Any) -> Any:
        yield from helper(ctx)

    async def inner(ctx: Any) -> Any:
        await ctx.call_activity("b")  # here

    async def coroutine(ctx: Any) -> Any:
        await inner(ctx)

    for function, innermost in [(generator, helper), (coroutine, inner)]:
        error = Driver(lambda ctx: (yield ctx.call_activity("a"))).replayed(function).nondeterminism
        assert error is not None
        assert error.position == f"The code is at {__file__}:{line_of(innermost, '# here')}, in {innermost.__name__}"


def test_code_that_has_ended_is_named_by_its_beginning() -> None:  # DET-7
    def ends(ctx: Any) -> Any:
        return 5
        yield

    error = Driver(lambda ctx: (yield ctx.call_activity("a"))).replayed(ends).nondeterminism
    assert error is not None
    assert error.position == f"The orchestrator is at {__file__}:{line_of(ends, 'def ends')}, ends"


def test_what_has_no_source_has_no_position() -> None:
    assert position(len, None) is None
