from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from server.errors import ClientDisconnectedError, DeadlineError, RequestCancelledError
from server.interruption import Interruption, TimeLimit

LONG = 60.0
LATE, LEFT, CANCELLED = DeadlineError("late"), ClientDisconnectedError("left"), RequestCancelledError("gone")


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(work())


def test_what_takes_too_long_ends_with_its_reason() -> None:
    async def work() -> None:
        with pytest.raises(DeadlineError, match="late"), TimeLimit(0.01, LATE):
            await asyncio.sleep(LONG)
        await asyncio.sleep(0.02)  # and the task goes on

    run(work)


def test_what_is_done_in_time_hears_nothing() -> None:
    async def work() -> None:
        with TimeLimit(0.01, LATE) as limit:
            await asyncio.sleep(0)
        limit.interrupt(LEFT)
        await asyncio.sleep(0.02)

    run(work)


def test_an_error_of_the_block_is_its_own() -> None:
    async def work() -> None:
        with pytest.raises(KeyError), TimeLimit(LONG, LATE):
            raise KeyError

    run(work)


def test_of_several_reasons_the_first_counts() -> None:
    async def work() -> None:
        with pytest.raises(ClientDisconnectedError), Interruption() as block:
            for error in (LEFT, CANCELLED):
                asyncio.get_running_loop().call_soon(block.interrupt, error)
            await asyncio.sleep(LONG)

    run(work)


@pytest.mark.parametrize(("first", "second"), [(0, 1), (1, 0)])
def test_blocks_in_blocks_end_with_the_outermost_reason(first: int, second: int) -> None:
    async def work() -> None:
        left = pytest.raises(ClientDisconnectedError)
        with left, Interruption() as outer, TimeLimit(LONG, LATE) as inner:
            ends = [(outer, LEFT), (inner, LATE)]
            for block, error in (ends[first], ends[second]):
                asyncio.get_running_loop().call_soon(block.interrupt, error)
            await asyncio.sleep(LONG)

    run(work)


def test_a_task_that_somebody_else_cancels_is_cancelled() -> None:
    async def work() -> None:
        with Interruption() as block:
            asyncio.get_running_loop().call_soon(block.interrupt, LEFT)
            task.cancel()
            await asyncio.sleep(LONG)

    async def both() -> None:
        nonlocal task
        task = asyncio.create_task(work())
        with pytest.raises(asyncio.CancelledError):
            await task

    task: asyncio.Task[None]
    run(both)
