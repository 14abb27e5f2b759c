"""Many different requests at once, each compared with the same request alone."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx
from rich.console import Console
from rich.progress import track

from benchmarks.statistics import percentile_table


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back for a request: its status, its images in base64, and the milliseconds that it took."""

    status: int
    images: list[str]
    wall_ms: float


def main(url: str, model: str | None, *, requests: int, max_steps: int, check: bool) -> bool:
    """Send `requests` at once and print rates and percentiles.

    Args:
        url: a server on this machine.
        model: name of the model, None for the server's default.
        requests: how many, each with a class, seed and number of steps of its own.
        max_steps: steps are 1 to this; a VAR model has none.
        check: ask for each again alone and compare the bytes.

    Returns:
        Whether all were answered and, if checked, equal.
    """
    console = Console()
    with httpx.Client(base_url=url, timeout=600) as client:
        name, bodies = mixed_bodies(client, model, requests, max_steps)
        started = time.perf_counter()
        together = asyncio.run(send_together(url, bodies))
        seconds = time.perf_counter() - started
        statuses = Counter(answer.status for answer in together)
        console.print(f"answers by status: {dict(statuses)}, {requests / seconds:.1f} a second")
        console.print(
            percentile_table(f"{requests} requests of {name} at once, ms", {"wall": _walls(together)})
        )
        if not check:
            return statuses[200] == requests
        alone = [send(client, body) for body in track(bodies, description="alone")]
    equal = sum(one.images == other.images for one, other in zip(together, alone, strict=True))
    console.print(f"{equal} of {requests} equal to the same request alone, byte for byte")
    console.print(percentile_table("the same requests alone, ms", {"wall": _walls(alone)}))
    return statuses[200] == requests == equal


def mixed_bodies(
    client: httpx.Client, model: str | None, count: int, max_steps: int
) -> tuple[str, list[dict[str, Any]]]:
    """Return the model's name and bodies that differ in class, seed and, where it has steps, their number."""
    models = client.get("/models").raise_for_status().json()["models"]
    name = model or next(entry["name"] for entry in models if entry["default"])
    detail = client.get(f"/models/{name}").raise_for_status().json()
    classes, diffusion = detail["classes"], detail["defaults"]["kind"] == "diffusion"
    return name, [
        {"model": name, "seed": index}
        | ({"class_id": 37 * index % classes} if classes else {})
        | ({"steps": 1 + index % max_steps} if diffusion else {})
        for index in range(count)
    ]


async def send_together(url: str, bodies: Sequence[dict[str, Any]]) -> list[Answer]:
    """Send all requests at once, each over a connection of its own."""
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=600, limits=limits) as client:

        async def one(body: dict[str, Any]) -> Answer:
            started = time.perf_counter()
            return _answer(await client.post("/generate", json=body), started)

        return await asyncio.gather(*(one(body) for body in bodies))


def send(client: httpx.Client, body: dict[str, Any]) -> Answer:
    """Send one request and wait for its answer."""
    started = time.perf_counter()
    return _answer(client.post("/generate", json=body), started)


def _answer(response: httpx.Response, started: float) -> Answer:
    wall_ms = 1000 * (time.perf_counter() - started)
    images = [image["image"] for image in response.json()["images"]] if response.status_code == 200 else []
    return Answer(response.status_code, images, wall_ms)


def _walls(answers: Sequence[Answer]) -> list[float]:
    return [answer.wall_ms for answer in answers]
