from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import structlog
from fake_engine import FakeEngine
from fake_server import serving, wait_until_ready
from job_servers import JobServers, check_npz, check_zip, create, finished, settings, wait_for
from test_server_access import ADMIN, USER, keys_file

from server.access.settings import AccessSettings

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[JobServers]:
    servers = JobServers(tmp_path)
    yield servers
    servers.stop()


@pytest.fixture
def quiet() -> Iterator[None]:
    """Keep the tracebacks of failing engines out of the output: they take seconds to draw."""
    with structlog.testing.capture_logs():
        yield


@contextmanager
def process(directory: Path, end: int = signal.SIGKILL) -> Iterator[httpx.Client]:
    """A server process with jobs in a directory; it gets the signal `end` where the block ends."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(ROOT / "tests" / "fake_server.py"), str(port), "0.003"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "DDO_JOBS__DIRECTORY": str(directory)}
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as server:
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
                wait_until_ready(client, 60)
                yield client
        finally:
            server.send_signal(end)
            assert server.wait(30) == (0 if end == signal.SIGTERM else -end)


def made(client: httpx.Client) -> float:
    lines = client.get("/metrics").text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("ddo_job_images_total{"))


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_jobs_go_on_after_the_server_ended(tmp_path: Path, end: int) -> None:
    n, seeds = 300, {"npz": 5, "zip": 9000}
    with process(tmp_path, end) as client:
        jobs = {kind: create(client, n=n, seed=seed, format=kind)["id"] for kind, seed in seeds.items()}
        for job in jobs.values():
            wait_for(client, job, lambda job: job["done"] >= 64)
        kept = {job: client.get(f"/jobs/{job}").json() for job in jobs.values()}
        assert {shown["state"] for shown in kept.values()} == {"running"}
    with process(tmp_path) as client:
        shown = {job: client.get(f"/jobs/{job}").json() for job in jobs.values()}
        assert all(shown[job]["done"] >= kept[job]["done"] for job in kept)
        check_npz(finished(client, jobs["npz"]), n, seeds["npz"], [0, 1, 2, 3])
        check_zip(finished(client, jobs["zip"]), n, seeds["zip"], client)
        # Those that were done before are not made again.
        assert made(client) <= 2 * n - sum(shown["done"] for shown in kept.values())


def test_the_same_key_makes_no_second_job(servers: JobServers) -> None:
    headers = {"Idempotency-Key": "mine"}
    client = servers.start()
    first = client.post("/jobs", json={"n": 3}, headers=headers)
    assert first.status_code == 201
    client = servers.start()
    again = client.post("/jobs", json={"n": 3}, headers=headers)
    assert (again.status_code, again.json()["id"]) == (200, first.json()["id"])
    assert again.json()["seed"] == first.json()["seed"]
    other = client.post("/jobs", json={"n": 4}, headers=headers)
    assert (other.status_code, other.json()["type"]) == (422, "urn:ddo-serve:idempotency-key-reused")
    assert len(client.get("/jobs").json()["jobs"]) == 1


def test_a_full_disk_fails_the_job_and_keeps_what_is_done(servers: JobServers) -> None:
    client = servers.start(FakeEngine(cost_s=0.001))
    job = create(client, n=300, seed=5)["id"]
    full = servers.chunks(job) / "00000192.part"
    full.parent.mkdir(parents=True, exist_ok=True)
    full.symlink_to("/dev/full")
    shown = wait_for(client, job, lambda job: job["state"] == "failed")
    assert (shown["done"], shown["reason"]) == (192, "the disk is full")
    client = servers.start()
    assert client.get(f"/jobs/{job}").json()["state"] == "failed"
    assert f"POST /jobs/{job}/resume" in client.get(f"/jobs/{job}/result").json()["detail"]
    assert client.post(f"/jobs/{job}/resume").status_code == 202
    check_npz(finished(client, job), 300, 5, [0, 1, 2, 3])
    assert 'ddo_job_images_total{model="fake",version="3"} 108.0' in client.get("/metrics").text
    assert client.post(f"/jobs/{job}/resume").status_code == 409


@pytest.mark.parametrize("damage", ["changed", "cut", "gone"])
def test_damaged_images_are_made_again(servers: JobServers, damage: str) -> None:
    client = servers.start(FakeEngine(cost_s=0.002))
    job = create(client, n=400, seed=5)["id"]
    wait_for(client, job, lambda job: job["done"] >= 128)
    servers.stop()
    files = sorted(servers.chunks(job).iterdir())
    for file in files[:2]:
        content = file.read_bytes()
        match damage:
            case "changed":
                file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
            case "cut":
                file.write_bytes(content[:-1])
            case "gone":
                file.unlink()
    client = servers.start()
    check_npz(finished(client, job), 400, 5, [0, 1, 2, 3])
    assert made(client) >= 128
    wait_for(client, job, lambda _: not servers.chunks(job).exists())  # after the result is told


def test_a_job_whose_model_is_gone_fails_and_can_go_on_later(servers: JobServers) -> None:
    job = create(servers.start(FakeEngine(cost_s=0.002)), n=400, seed=5)["id"]
    client = servers.start(name="other")
    shown = wait_for(client, job, lambda job: job["state"] == "failed")
    assert "no model is called 'fake'" in shown["reason"]
    client = servers.start()
    client.post(f"/jobs/{job}/resume")
    check_npz(finished(client, job), 400, 5, [0, 1, 2, 3])


def test_a_job_waits_for_its_model_to_load(servers: JobServers, tmp_path: Path) -> None:
    job = create(servers.start(FakeEngine(cost_s=0.002)), n=400, seed=5)["id"]
    servers.stop()
    loaded = threading.Event()

    def load() -> FakeEngine:
        loaded.wait(20)
        return FakeEngine()

    with serving({"fake": load}, settings(tmp_path)) as url, httpx.Client(base_url=url) as client:
        shown = wait_for(client, job, lambda job: "reason" in job)
        assert (shown["state"], shown["reason"]) == ("queued", "model fake/3 is not ready: loading")
        loaded.set()
        check_npz(finished(client, job), 400, 5, [0, 1, 2, 3])


def test_one_server_at_a_time_uses_a_directory(servers: JobServers, tmp_path: Path) -> None:
    first = servers.start()
    job = create(first, n=3)["id"]
    with serving({"fake": FakeEngine()}, settings(tmp_path)) as url, httpx.Client(base_url=url) as second:
        wait_until_ready(second)
        assert second.get("/jobs").json() == {"jobs": []}
        refused = second.post("/jobs", json={"n": 3})
        assert refused.status_code == 507
        assert "another server uses this jobs' directory" in refused.json()["detail"]
    finished(first, job)


@pytest.mark.usefixtures("quiet")
def test_an_engine_that_keeps_failing_fails_the_job(servers: JobServers) -> None:
    client = servers.start(FakeEngine(fail_class=3))
    shown = wait_for(client, create(client, n=8)["id"], lambda job: job["state"] == "failed")
    assert shown["reason"] == "the engine failed while making this image"
    finished(client, create(client, n=8, classes=[0, 1])["id"])


@pytest.mark.usefixtures("quiet")
def test_a_neighbour_that_breaks_a_call_does_not_break_the_job(servers: JobServers) -> None:
    client = servers.start(FakeEngine(fail_class=3, cost_s=0.002))
    job = create(client, n=200, seed=5, classes=1)["id"]
    for _ in range(2):
        assert client.post("/generate", json={"class_id": 3}).status_code == 500
    check_npz(finished(client, job), 200, 5, [1])


def test_callers_see_their_own_jobs(tmp_path: Path) -> None:
    access = AccessSettings(keys=keys_file(tmp_path, images_per_minute=10))
    asked = settings(tmp_path).model_copy(update={"access": access})
    user, admin = ({"X-API-Key": key} for key in (USER, ADMIN))
    with serving({"fake": FakeEngine()}, asked) as url, httpx.Client(base_url=url) as client:
        wait_until_ready(client)
        assert client.post("/jobs", json={"n": 1}).status_code == 401
        job = client.post("/jobs", json={"n": 1}, headers=admin).json()["id"]
        own = client.post("/jobs", json={"n": 1}, headers=user).json()["id"]
        for path in (f"/jobs/{job}", f"/jobs/{job}/result"):
            assert client.get(path, headers=user).status_code == 404
        assert client.delete(f"/jobs/{job}", headers=user).status_code == 404
        assert [job["id"] for job in client.get("/jobs", headers=user).json()["jobs"]] == [own]
        assert len(client.get("/jobs", headers=admin).json()["jobs"]) == 2
        statuses = [client.post("/jobs", json={"n": n}, headers=user).status_code for n in (11, 9, 1)]
        assert statuses == [422, 201, 429]  # A job's images count as others do.
