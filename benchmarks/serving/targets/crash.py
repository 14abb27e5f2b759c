"""A server killed in the middle of jobs: after its restart they finish, no image lost, doubled or changed."""

from __future__ import annotations

import base64
import io
import json
import time
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image

from benchmarks.serving.ours import stub_server
from benchmarks.serving.processes import ServerError, get, post
from benchmarks.serving.targets.bench import Bench
from benchmarks.serving.targets.reading import Reading

PROMISE = "crash"
JOBS = 2
IMAGES = 1500
KILLS = 3
SAMPLED = 40
TIMEOUT_S = 180.0


def measure(bench: Bench) -> list[Reading]:
    """Kill the server three times with SIGKILL while jobs run, then read their results."""
    draw = bench.draw()
    with stub_server() as server:
        jobs = [_create(server.url, seed=1_000_000 * number) for number in range(JOBS)]
        for kill in range(1, KILLS + 1):
            _wait(server.url, jobs, done=JOBS * IMAGES * kill / (KILLS + 2))
            server.process.kill()
            server.process.start()
        _wait(server.url, jobs, done=JOBS * IMAGES)
        finished = missing = doubled = different = 0
        for job in jobs:
            info = _info(server.url, job)
            finished += info["state"] == "finished"
            images, labels, seeds = _result(server.url, job)
            wanted = range(info["seed"], info["seed"] + IMAGES)
            missing += len(set(wanted) - set(seeds))
            doubled += len(seeds) - len(set(seeds)) + len(images) - len({image.tobytes() for image in images})
            for place in draw.sample(range(len(seeds)), min(SAMPLED, len(seeds))):
                body = {"class_id": labels[place], "seed": seeds[place]}
                different += not np.array_equal(images[place], _generate(server.url, body))
    return [
        Reading(PROMISE, f"jobs finished after {KILLS} kills, of {JOBS}", finished, JOBS, at_least=True),
        Reading(PROMISE, f"images lost, of {JOBS * IMAGES}", missing, 0),
        Reading(PROMISE, "images doubled", doubled, 0),
        Reading(PROMISE, f"of {JOBS * SAMPLED} images not those of POST /generate", different, 0),
    ]


def _create(url: str, seed: int) -> str:
    wanted = {"n": IMAGES, "classes": "all", "seed": seed, "format": "npz"}
    status, answer = post(url, "/jobs", wanted)
    if status != 201:
        raise ServerError(f"POST /jobs answered {status}: {answer}")
    return str(answer["id"])


def _info(url: str, job: str) -> Any:
    status, text = get(url, f"/jobs/{job}")
    if status != 200:
        raise ServerError(f"GET /jobs/{job} answered {status}: {text.decode(errors='replace')}")
    return json.loads(text)


def _wait(url: str, jobs: list[str], done: float) -> None:
    """Wait until so many images are done; when all are to be, until the jobs have ended."""
    everything = done >= len(jobs) * IMAGES
    end = time.monotonic() + TIMEOUT_S
    while time.monotonic() < end:
        infos = [_info(url, job) for job in jobs]
        ended = all(info["state"] in ("finished", "failed") for info in infos)
        if ended or (not everything and sum(info["done"] for info in infos) >= done):
            return
        time.sleep(0.02)
    raise ServerError(f"jobs did not end in {TIMEOUT_S:.0f} s")


def _result(url: str, job: str) -> tuple[npt.NDArray[np.uint8], list[int], list[int]]:
    status, data = get(url, f"/jobs/{job}/result")
    if status != 200:
        raise ServerError(f"GET /jobs/{job}/result answered {status}: {data.decode(errors='replace')}")
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return arrays["arr_0"], arrays["labels"].tolist(), arrays["seeds"].tolist()


def _generate(url: str, body: dict[str, Any]) -> npt.NDArray[np.uint8]:
    status, answer = post(url, "/generate", body)
    if status != 200:
        raise ServerError(f"POST /generate answered {status}: {answer}")
    with PIL.Image.open(io.BytesIO(base64.b64decode(answer["images"][0]["image"]))) as image:
        return np.asarray(image)
