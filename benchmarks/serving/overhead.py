"""Idle overhead: what a request costs beyond its engine calls."""

from __future__ import annotations

import http.client
import json
import time
from typing import Any
from urllib.parse import urlsplit

from rich.console import Console
from rich.progress import track

from benchmarks.statistics import percentile_table

WARM_UP = 10


def main(url: str, model: str | None, requests: int) -> None:
    """Send requests one after the other over one connection and print where their time went.

    The overhead is the client's wall time less the compute time that the server tells: HTTP, queue, encoding
    and base64. The client is Python's plain one, because a comfortable one costs about as much as the server.
    """
    series: dict[str, list[float]] = {"overhead": [], "of it queue": [], "of it encode": [], "compute": []}
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=120)
    models = call(connection, "GET", "/models")["models"]
    chosen = next(entry for entry in models if (entry["name"] == model if model else entry["default"]))
    body = {"model": chosen["name"], **({"class_id": 0} if chosen["classes"] else {})}
    for seed in track(range(-WARM_UP, requests), description="requests"):
        started = time.perf_counter()
        timings = call(connection, "POST", "/generate", body | {"seed": max(0, seed)})["timings"]
        wall_ms = 1000 * (time.perf_counter() - started)
        if seed >= 0:
            series["overhead"].append(wall_ms - timings["compute_ms"])
            series["of it queue"].append(timings["queue_ms"])
            series["of it encode"].append(timings["encode_ms"])
            series["compute"].append(timings["compute_ms"])
    connection.close()
    Console().print(percentile_table(f"{requests} requests of {chosen['name']}, one at a time, ms", series))


def call(connection: http.client.HTTPConnection, method: str, path: str, body: object = None) -> Any:
    """Send a request, with a JSON body if there is one, and return the answer's JSON.

    Raises:
        RuntimeError: the status is not 200.
    """
    connection.request(method, path, None if body is None else json.dumps(body).encode())
    response = connection.getresponse()
    text = response.read()
    if response.status != 200:
        raise RuntimeError(f"{method} {path} answered {response.status}: {text.decode()}")
    return json.loads(text)
