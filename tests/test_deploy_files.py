"""The server starts with what deploy/ gives it, its probes are there, and it has the time to drain."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from fake_engine import FakeEngine
from fake_server import serving, wait_until_ready
from test_server_access import USER, keys_file

from server.app import STOP_TIMEOUT_S
from server.settings import Settings

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
LONGEST_S = Settings().deadline_ms / 1000 + Settings().shutdown_timeout_s + STOP_TIMEOUT_S


def read(path: str) -> Any:
    return yaml.safe_load((DEPLOY / path).read_text())


def server_of(compose: str) -> dict[str, Any]:
    return read(compose)["services"]["server"]


COMPOSE = server_of("compose.yaml")
KEYED = {**COMPOSE["environment"], **server_of("compose.keys.yaml")["environment"]}
DEPLOYMENT = read("kubernetes/deployment.yaml")
POD = DEPLOYMENT["spec"]["template"]["spec"]
CONTAINER = POD["containers"][0]
UNIT = (DEPLOY / "systemd" / "ddo-serve.service").read_text()


def of_image() -> dict[str, str]:
    text = (ROOT / "Dockerfile").read_text()
    return dict(re.findall(r"\b(DDO_\w+)=(\S+)", "\n".join(re.findall(r"^ENV .*", text, re.MULTILINE))))


IMAGE = of_image()
PLACES = {
    "Dockerfile": IMAGE,
    "compose": {**IMAGE, **COMPOSE["environment"]},
    "compose with keys": {**IMAGE, **KEYED},
    "kubernetes": {**IMAGE, **{entry["name"]: entry.get("value", "2") for entry in CONTAINER["env"]}},
    "systemd": dict(re.findall(r"\b(DDO_[A-Z_]+)=(\S+/\S+)", re.sub(r"(?m)^#.*", "", UNIT))),
}


@pytest.fixture(params=PLACES)
def environment(request: pytest.FixtureRequest) -> dict[str, str]:
    return PLACES[request.param]


def is_setting(variable: str) -> bool:
    fields: Any = Settings
    for part in variable.removeprefix("DDO_").lower().split("__"):
        if part not in getattr(fields, "model_fields", {}):
            return False
        fields = fields.model_fields[part].annotation
    return True


def test_variables_are_settings(environment: dict[str, str]) -> None:
    assert environment
    assert not {name for name in environment if not is_setting(name)}


@pytest.mark.parametrize("place", ["compose", "compose with keys", "kubernetes"])
def test_server_starts_and_is_scraped(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As other containers see it: by the host name that they know, on every address."""
    variables = {**PLACES[place], "DDO_JOBS__DIRECTORY": str(tmp_path)}
    keyed = "DDO_ACCESS__KEYS" in variables
    if keyed:
        variables["DDO_ACCESS__KEYS"] = str(keys_file(tmp_path))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    assert settings.host == "0.0.0.0"
    with (
        serving({"fake": FakeEngine()}, settings) as url,
        httpx.Client(base_url=url, headers={"Host": "server:8000"}) as client,
    ):
        wait_until_ready(client)
        assert client.get("/metrics").status_code == (401 if keyed else 200)
        assert client.get("/metrics", headers={"Authorization": f"Bearer {USER}"}).status_code == 200
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert client.get(CONTAINER[probe]["httpGet"]["path"]).status_code == 200


def test_image_without_keys_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in IMAGE.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="no API keys"), serving({"fake": FakeEngine()}, Settings()):
        pass


def test_open_server_is_published_on_this_machine_alone() -> None:
    services = read("compose.yaml")["services"]
    assert services["server"]["environment"]["DDO_ACCESS__OPEN"] == "true"
    for service in services.values():
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert read("compose.keys.yaml")["services"]["server"]["environment"]["DDO_ACCESS__OPEN"] == "false"


def test_mounted_files_are_there() -> None:
    for name in ("compose.yaml", "compose.keys.yaml"):
        compose = read(name)
        volumes = [
            volume for service in compose["services"].values() for volume in service.get("volumes", ())
        ]
        for volume in volumes:
            source = volume.split(":")[0]
            assert (
                (DEPLOY / source).exists()
                if source.startswith(".")
                else source in read("compose.yaml")["volumes"]
            )
        for service in compose["services"].values():
            assert set(service.get("secrets", ())) <= compose.get("secrets", {}).keys()
    scrape = read("prometheus/scrape/keys.yml")["scrape_configs"][0]
    assert scrape["authorization"]["credentials_file"] == "/run/secrets/scrape-key"


def test_paths_of_the_image_are_mounted_where_the_root_is_read_only() -> None:
    folders = {value for value in IMAGE.values() if value.startswith("/")}
    assert COMPOSE["read_only"] is True
    assert CONTAINER["securityContext"]["readOnlyRootFilesystem"] is True
    assert folders == {volume.split(":")[1] for volume in COMPOSE["volumes"]}
    assert folders <= {mount["mountPath"] for mount in CONTAINER["volumeMounts"]}


def test_drain_has_the_time_that_it_needs() -> None:
    pause_s = float(CONTAINER["lifecycle"]["preStop"]["exec"]["command"][1])
    assert POD["terminationGracePeriodSeconds"] >= LONGEST_S + pause_s
    assert float(COMPOSE["stop_grace_period"].removesuffix("s")) >= LONGEST_S
    stop = re.search(r"^TimeoutStopSec=(\d+)$", UNIT, re.MULTILINE)
    assert stop
    assert float(stop[1]) >= LONGEST_S


def test_kubernetes_objects_belong_together() -> None:
    labels = DEPLOYMENT["spec"]["template"]["metadata"]["labels"]
    budget, policy = read("kubernetes/poddisruptionbudget.yaml"), read("kubernetes/networkpolicy.yaml")
    monitor, scaler = read("kubernetes/podmonitor.yaml"), read("kubernetes/hpa.yaml")
    assert read("kubernetes/service.yaml")["spec"]["selector"] == labels
    assert DEPLOYMENT["spec"]["selector"]["matchLabels"] == labels
    assert budget["spec"]["selector"]["matchLabels"] == labels
    assert policy["spec"]["podSelector"]["matchLabels"] == labels
    assert monitor["spec"]["selector"]["matchLabels"] == labels
    assert scaler["spec"]["scaleTargetRef"]["name"] == DEPLOYMENT["metadata"]["name"]
    adapter = read("kubernetes/prometheus-adapter.yaml")["rules"]["custom"]
    asked = {metric["pods"]["metric"]["name"] for metric in scaler["spec"]["metrics"]}
    assert asked == {rule["name"]["as"] for rule in adapter}
    assert labels[monitor["spec"]["jobLabel"]] == "ddo-serve"
    secret = monitor["spec"]["podMetricsEndpoints"][0]["authorization"]["credentials"]["name"]
    assert {volume["secret"]["secretName"] for volume in POD["volumes"] if "secret" in volume} == {secret}
    files = {path.name for path in (DEPLOY / "kubernetes").glob("*.yaml")}
    listed = set(read("kubernetes/kustomization.yaml")["resources"])
    assert files - listed == {"kustomization.yaml", "prometheus-adapter.yaml"}


@pytest.mark.parametrize(
    "name", [n for n in read("kubernetes/kustomization.yaml")["resources"] if n != "podmonitor.yaml"]
)
def test_kubernetes_knows_every_field(name: str) -> None:
    schemas = pytest.importorskip("kubernetes_validate")
    schemas.validate(read(f"kubernetes/{name}"), "1.31", strict=True)


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed")
    unit = tmp_path / "ddo-serve.service"
    unit.write_text(re.sub(r"(?m)^(ExecStart=)\S+", rf"\g<1>{sys.executable}", UNIT))
    ran = subprocess.run([analyze, "verify", str(unit)], capture_output=True, text=True, check=True)
    assert "ddo-serve" not in ran.stderr


@pytest.mark.parametrize("name", ["compose.yaml", "compose.keys.yaml"])
def test_compose_knows_every_field(name: str) -> None:
    pytest.importorskip("check_jsonschema")
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    ran = subprocess.run([*check, str(DEPLOY / name)], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout
