"""Work on threads that is over when its caller goes on, cancelled or not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TypeVar

T = TypeVar("T")


async def finish_on(
    executor: Executor, work: Callable[[], T], *, hurry: Callable[[], None] = lambda: None
) -> T:
    """Run `work` on an executor; cancelled, call `hurry` and wait for the work's end all the same."""
    running = asyncio.get_running_loop().run_in_executor(executor, work)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        hurry()
        await asyncio.wait([running])
        running.exception()  # Who is cancelled has no use for it; asyncio would log it as forgotten.
        raise
