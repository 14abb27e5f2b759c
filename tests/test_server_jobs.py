from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import PIL.Image
import pytest
from fake_engine import FakeEngine
from fake_server import NAMES, serving, version, wait_until_ready
from job_servers import JobServers, check_npz, create, expected, finished, settings, wait_for

from trainer.data.archive import Archive

SLOW = {"n": 5000, "steps": 100, "seed": 0}


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[JobServers]:
    servers = JobServers(tmp_path)
    yield servers
    servers.stop()


@pytest.mark.parametrize(
    ("wanted", "classes"),
    [
        ({}, [0, 1, 2, 3]),
        ({"classes": "all"}, [0, 1, 2, 3]),
        ({"classes": 2}, [2]),
        ({"classes": "Ghost"}, [3]),
        ({"classes": [3, "cat face", 3]}, [3, 1, 3]),
    ],
)
def test_npz(servers: JobServers, wanted: dict[str, Any], classes: list[int | None]) -> None:
    client = servers.start()
    job = create(client, n=131, seed=7, **wanted)
    assert (job["model"], job["version"], job["total"], job["seed"]) == ("fake", 3, 131, 7)
    assert job["parameters"] == {"cfg": 1.0, "steps": 4, "solver": "heun"}
    check_npz(finished(client, job["id"]), 131, 7, classes)


def test_a_model_without_classes(tmp_path: Path) -> None:
    with (
        serving({"free": FakeEngine()}, settings(tmp_path), free=version("free", classes=())) as url,
        httpx.Client(base_url=url) as client,
    ):
        wait_until_ready(client)
        job = create(client, n=5, seed=1)
        assert "classes" not in job
        check_npz(finished(client, job["id"]), 5, 1, [None])
        names = zipfile.ZipFile(io.BytesIO(finished(client, create(client, n=2, seed=1, format="zip")["id"])))
        assert names.namelist()[0] == "00000/00000000_seed1.png"
        assert json.loads(names.read("dataset.json")) == {"labels": None}


def test_zip(servers: JobServers, tmp_path: Path) -> None:
    client = servers.start()
    contents = [finished(client, create(client, n=150, seed=9, format="zip")["id"]) for _ in range(2)]
    assert contents[0] == contents[1]
    (tmp_path / "job.zip").write_bytes(contents[0])
    archive = Archive.open(tmp_path / "job.zip")  # as the trainer reads data sets
    assert archive.class_names == NAMES
    assert archive.labels.tolist() == [index % 4 for index in range(150)]
    assert archive.members[149] == "00000/00000149_class0001_seed158.png"
    for index in range(150):
        with PIL.Image.open(io.BytesIO(archive.content(index))) as image:
            np.testing.assert_array_equal(np.asarray(image), expected(9 + index, index % 4))


def test_images_are_those_of_generate(servers: JobServers) -> None:
    client = servers.start()
    body = {"steps": 7, "solver": "euler", "seed": 40}
    job = create(client, n=20, format="zip", **body)
    with zipfile.ZipFile(io.BytesIO(finished(client, job["id"]))) as archive:
        for index, name in enumerate(sorted(archive.namelist())[:20]):
            alone = client.post(
                "/generate",
                json={**body, "seed": 40 + index, "class_id": index % 4},
                headers={"Accept": "image/png"},
            )
            assert alone.content == archive.read(name)


def test_parts_of_a_result_can_be_had(servers: JobServers) -> None:
    client = servers.start()
    job = create(client, n=10)["id"]
    whole = finished(client, job)
    part = client.get(f"/jobs/{job}/result", headers={"Range": "bytes=100-299"})
    assert (part.status_code, part.content) == (206, whole[100:300])
    assert part.headers["Content-Range"] == f"bytes 100-299/{len(whole)}"
    assert f'filename="fake-3-{job}.npz"' in part.headers["Content-Disposition"]
    (servers.directory / "jobs" / "jobs" / job / "result.npz").unlink()
    gone = client.get(f"/jobs/{job}/result")
    assert (gone.status_code, gone.json()["type"]) == (507, "urn:ddo-serve:storage")


def test_nothing_is_on_the_disk_before_the_first_job(servers: JobServers, tmp_path: Path) -> None:
    client = servers.start()
    assert client.get("/jobs").json() == {"jobs": []}
    assert client.post("/jobs", json={"n": 0}).status_code == 422
    assert not (tmp_path / "jobs").exists()


@pytest.mark.parametrize(
    ("body", "field", "message"),
    [
        ({"n": 5001}, "n", "5001 is more than 5000"),
        ({"n": 2, "seed": 2**63 - 1}, "seed", "more than"),
        ({"n": 1, "steps": 1001}, "steps", "1001 is more than 1000"),
        ({"n": 1, "classes": [1, 4]}, "classes", "4 is not 0 to 3"),
        ({"n": 1, "classes": "gohst"}, "classes", "did you mean 'ghost'"),
        ({"n": 1, "classes": []}, "classes", "at least 1 item"),
        ({"n": 1, "solver": "magic"}, "solver", "is none of"),
        ({"n": 1, "format": "tar"}, "format", "'npz' or 'zip'"),
        ({"n": 1, "clases": 1}, "clases", "did you mean classes?"),
    ],
)
def test_bad_requests(servers: JobServers, body: dict[str, Any], field: str, message: str) -> None:
    answer = servers.start(max_images=5000).post("/jobs", json=body)
    assert answer.status_code == 422
    error = answer.json()["errors"][0]
    assert error["field"].partition(".")[0] == field
    assert message in error["message"]


def test_a_cancelled_job_leaves_nothing(servers: JobServers, tmp_path: Path) -> None:
    engine = FakeEngine(cost_s=0.001)
    client = servers.start(engine)
    job = create(client, **{**SLOW, "steps": 1})["id"]
    early = client.get(f"/jobs/{job}/result")
    assert (early.status_code, early.json()["type"]) == (409, "urn:ddo-serve:job-conflict")
    wait_for(client, job, lambda job: job["done"] > 0)
    assert client.delete(f"/jobs/{job}").status_code == 204
    assert client.get(f"/jobs/{job}").status_code == client.delete(f"/jobs/{job}").status_code == 404
    assert list((tmp_path / "jobs" / "jobs").iterdir()) == []
    client.post("/generate", json={"class_id": 1})
    assert engine.rows == []
    finished(client, create(client, n=2)["id"])
    last = client.get("/jobs").json()["jobs"][0]["id"]
    assert client.delete(f"/jobs/{last}").status_code == 204
    assert list((tmp_path / "jobs" / "jobs").iterdir()) == []


def test_jobs_take_turns_and_leave_room(servers: JobServers) -> None:
    engine = FakeEngine(cost_s=0.001)
    client = servers.start(engine, parallel=2)
    jobs = [create(client, **SLOW)["id"] for _ in range(3)]
    wait_for(client, jobs[1], lambda job: job["state"] == "running")
    assert client.get(f"/jobs/{jobs[2]}").json()["state"] == "queued"
    assert client.post("/generate", json={"class_id": 1, "steps": 2}).status_code == 200
    text = client.get("/metrics").text
    rows = [line for line in text.splitlines() if line.startswith(("ddo_queue_rows{", "ddo_active_rows{"))]
    assert 0 < sum(float(line.rsplit(" ", 1)[1]) for line in rows) <= 2 * 3 * engine.max_rows
    assert 'ddo_jobs{state="running"} 2.0' in text
    assert 'ddo_jobs{state="queued"} 1.0' in text
    client.delete(f"/jobs/{jobs[0]}")
    wait_for(client, jobs[2], lambda job: job["state"] == "running")


def test_a_job_that_would_not_fit_is_refused(servers: JobServers) -> None:
    client = servers.start(disk_bytes=8 << 20, max_jobs=2)
    refused = client.post("/jobs", json={"n": 2000})
    assert (refused.status_code, refused.json()["type"]) == (507, "urn:ddo-serve:storage")
    assert "this job may need 17 MiB" in refused.json()["detail"]
    assert client.get("/jobs").json() == {"jobs": []}
    for _ in range(2):
        finished(client, create(client, n=1)["id"])
    assert "2 jobs are kept already" in client.post("/jobs", json={"n": 1}).json()["detail"]


def test_other_methods_are_told_which_ones_there_are(servers: JobServers) -> None:
    client = servers.start()
    for path, methods in (("/jobs", {"GET", "POST"}), ("/jobs/1", {"GET", "DELETE"})):
        refused = client.put(path)
        assert refused.status_code == 405
        assert set(refused.headers["Allow"].split(", ")) == methods
