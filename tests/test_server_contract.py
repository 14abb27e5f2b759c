"""The server does what its OpenAPI document says, for requests that nobody thought of."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from fake_engine import FakeEngine
from fake_server import serving, version, wait_until_ready
from test_server_access import ADMIN, keys_file

from server.access.settings import AccessSettings
from server.jobs.settings import JobSettings
from server.settings import Settings

CONFIG = Path(__file__).with_name("schemathesis.toml")


@pytest.mark.slow
@pytest.mark.parametrize("guarded", [True, False])
def test_nothing_contradicts_the_document(tmp_path: Path, guarded: bool) -> None:
    access = AccessSettings(keys=keys_file(tmp_path) if guarded else None)
    classes = tuple(f"class {number}" for number in range(256))
    settings = Settings(access=access, jobs=JobSettings(directory=tmp_path / "jobs"))
    with serving({"fake": FakeEngine()}, settings, fake=version("fake", classes=classes)) as url:
        with httpx.Client(base_url=url) as client:
            wait_until_ready(client)
        command = [str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(CONFIG)]
        command += ["run", f"{url}/openapi.json", "--seed", "1", "--checks", "all", "--no-color"]
        command += ["--continue-on-failure", "--max-examples", "3"]
        command += ["--phases", "examples,coverage,fuzzing,stateful" if guarded else "examples"]
        command += ["--header", f"Authorization: Bearer {ADMIN}"] if guarded else []
        ended = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
        )
    assert ended.returncode == 0, ended.stdout[-8000:] + ended.stderr[-2000:]
