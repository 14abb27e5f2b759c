from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from fake_engine import FakeEngine
from fake_server import serving, version, wait_until_ready
from typer.testing import CliRunner

from benchmarks.cli import cli


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    engines = {"fake": FakeEngine(), "free": FakeEngine(), "moody": MoodyEngine()}
    with serving(engines, free=version("free", classes=())) as url:
        with httpx.Client(base_url=url) as client:
            wait_until_ready(client)
        yield url


class MoodyEngine(FakeEngine):
    """Its images depend on who shared the batch."""

    def image(self, row):  # type: ignore[no-untyped-def]
        return super().image(row) // 2 + len(self.batches[-1])


@pytest.mark.parametrize("model", ["fake", "free"])
def test_overhead_prints_percentiles(url: str, model: str) -> None:
    result = CliRunner().invoke(cli, ["overhead", "--url", url, "--requests", "5", "--model", model])
    assert result.exit_code == 0, result.output
    assert f"5 requests of {model}" in result.output
    assert all(word in result.output for word in ("overhead", "queue", "encode", "compute", "p50", "p99"))


@pytest.mark.parametrize("model", ["fake", "free"])
def test_load_compares_each_image_with_the_same_alone(url: str, model: str) -> None:
    result = CliRunner().invoke(cli, ["load", "--url", url, "--requests", "20", "--model", model])
    assert result.exit_code == 0, result.output
    assert "20 of 20 equal" in result.output


def test_load_fails_when_an_image_differs(url: str) -> None:
    result = CliRunner().invoke(cli, ["load", "--url", url, "--requests", "20", "--model", "moody"])
    assert result.exit_code == 1
    assert "of 20 equal" in result.output


@pytest.mark.parametrize(
    "address",
    ["http://example.com", "http://10.0.0.1:8000", "http://127.0.0.1.example.com", "https://localhost"],
)
@pytest.mark.parametrize("command", ["overhead", "load"])
def test_only_this_machine_is_measured(command: str, address: str) -> None:
    result = CliRunner().invoke(cli, [command, "--url", address])
    assert result.exit_code == 2
    assert "only http://" in result.output
