"""Training on two hosts, each a network namespace with an address of its own; one of them dies."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from tiny_runs import config, images, training, write_toml

from trainer.training.record import LOG_FILE

BATCH, STEPS = 8, 600
PORT = 29400
ENTER, TORCHRUN = ("ip", "netns", "exec"), (sys.executable, "-m", "torch.distributed.run")


def ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def hosts() -> Iterator[list[str]]:
    """The names of two namespaces, joined by a wire: 10.83.0.1 and 10.83.0.2."""
    names = [f"ddo-{os.getpid()}-{number}" for number in (1, 2)]
    if not shutil.which("ip"):
        pytest.skip("needs ip of iproute2")
    with ExitStack() as stack:
        try:
            for name in names:
                ip("netns", "add", name)
                stack.callback(ip, "netns", "del", name)
            ends = ("ddo0", "ddo1")
            ip("link", "add", ends[0], "netns", names[0], "type", "veth", "peer", ends[1], "netns", names[1])
            for number, (name, end) in enumerate(zip(names, ends, strict=True), start=1):
                ip("-n", name, "address", "add", f"10.83.0.{number}/24", "dev", end)
                for device in ("lo", end):
                    ip("-n", name, "link", "set", device, "up")
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network namespaces here: {error.stderr.strip()}")
        yield names


def train(host: str, number: int, *arguments: object) -> subprocess.Popen[bytes]:
    """Start torchrun on a host; it goes on with one host where it has to."""
    elastic = ["--nnodes", "1:2", "--nproc-per-node", "1", "--max-restarts", "3", "--monitor-interval", "0.2"]
    meeting = ["--rdzv-backend", "c10d", "--rdzv-id", "run", "--rdzv-endpoint", f"10.83.0.1:{PORT}"]
    meeting += [
        "--rdzv-conf",
        f"is_host={number == 1},last_call_timeout=2",
        "--local-addr",
        f"10.83.0.{number}",
    ]
    return subprocess.Popen(
        [*ENTER, host, *TORCHRUN, *elastic, *meeting, *map(str, arguments)],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "OMP_NUM_THREADS": "1",
            "GLOO_SOCKET_IFNAME": f"ddo{number - 1}",
        },
    )


def kill(host: str) -> None:
    """End every process of a host at once, as a power cut does."""
    for process in ip("netns", "pids", host).split():
        with suppress(ProcessLookupError):
            os.kill(int(process), signal.SIGKILL)


def until(condition: Callable[[], bool], timeout_s: float = 60) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "nothing came of it"
        time.sleep(0.05)


def steps(run: Path) -> list[int]:
    log = run / LOG_FILE
    return [json.loads(line)["images"] for line in log.read_text().splitlines()] if log.exists() else []


@pytest.mark.slow
@pytest.mark.skipif(
    "DDO_TEST_HOSTS" not in os.environ, reason="takes half a minute and root: DDO_TEST_HOSTS=1"
)
def test_a_host_dies_and_training_goes_on(hosts: list[str], tmp_path: Path) -> None:
    images().save(tmp_path / "data.npz")
    settings = training(microbatch=4, images=BATCH * STEPS, report_steps=20, checkpoint_seconds=0.2)
    path = write_toml(
        tmp_path / "run.toml",
        config("edm", tmp_path / "data.npz", training=settings, grid_images=10 * BATCH * STEPS),
    )
    run = tmp_path / "run"
    command = ("-m", "trainer", "pretrain", path, "--out", run)
    torchruns = [train(host, number, *command) for number, host in enumerate(hosts, start=1)]
    try:
        until(lambda: len(steps(run)) >= 3)
        workers = [len(ip("netns", "pids", host).split()) for host in hosts]
        before = steps(run)[-1]
        kill(hosts[1])
        assert torchruns[0].wait(120) == 0
    finally:
        for host, process in zip(hosts, torchruns, strict=True):
            kill(host)
            process.wait(10)
    assert min(workers) >= 2, "both hosts had torchrun and a process that trained"
    assert before < BATCH * STEPS
    assert steps(run) == list(range(20 * BATCH, BATCH * STEPS + 1, 20 * BATCH)), "no step is missing or twice"
    assert (run / "weights.safetensors").exists()
