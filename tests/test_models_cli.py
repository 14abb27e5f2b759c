"""`python -m models`: what a person types and reads."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import official
import pytest
import torch
from official import EDM2_INIT, EDM_INIT, VAR_INIT, VQVAE_INIT
from reference import fill
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from models import build
from models.cli import app
from models.registry import Registry


def run(*arguments: Any) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.stdout, result.stderr


def write_pickle(path: Path, init: dict[str, Any]) -> Path:
    return official.write_pickle(path, official.persistent(fill(build(init)), init))


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    return tmp_path / "registry"


def test_convert_writes_the_registry_layout(tmp_path: Path, registry: Path) -> None:
    source = write_pickle(tmp_path / "My Model.pkl", EDM_INIT)
    code, out, _ = run("convert", source, registry, "--licence", "CC0-1.0")
    assert code == 0
    assert "my-model version 1 is in" in out
    assert "CC0-1.0" in out
    directory = registry / "my-model" / "versions" / "0001"
    assert {path.name for path in directory.iterdir()} == {"model.json", "weights.safetensors"}
    content = json.loads((directory / "model.json").read_text())
    assert content["licence"] == "CC0-1.0"
    assert content["class_names"] == ["class 0", "class 1", "class 2"]
    assert len(content["files"]["weights.safetensors"]["sha256"]) == 64
    assert content["lineage"]["source"].startswith("My Model.pkl sha256:")
    version = Registry(registry).open("my-model")
    assert official.tensors_equal(version.network().state_dict(), fill(build(EDM_INIT)).state_dict())


def test_convert_keeps_half_precision_and_takes_a_guide(tmp_path: Path, registry: Path) -> None:
    network = fill(build(EDM2_INIT)).half()
    main = official.write_pickle(tmp_path / "main.pkl", official.persistent(network, EDM2_INIT))
    guide = write_pickle(tmp_path / "guide.pkl", {**EDM2_INIT, "label_dim": 0})
    assert run("convert", main, registry, "--as", "guided", "--guide", guide)[0] == 0
    version = Registry(registry).open("guided")
    assert (version.spec.family, version.spec.guidance, version.spec.codec.kind) == (
        "edm2",
        "guide",
        "pixels",
    )
    weights = load_file(version.directory / "weights.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float16}
    assert not any("emb_label" in name for name in version.network("guide").state_dict())


def test_convert_var_with_its_tokenizer(tmp_path: Path, registry: Path) -> None:
    main = official.write_archive(tmp_path / "var.pth", fill(build(VAR_INIT)).state_dict())
    vqvae = official.write_archive(tmp_path / "vae.pth", fill(build(VQVAE_INIT)).state_dict())
    code, _, err = run("convert", main, registry, "--as", "small-var")
    assert (code, err.strip()) == (1, "error: small-var also needs the file of its network 'vqvae'")
    assert run("convert", main, registry, "--as", "small-var", "--vqvae", vqvae)[0] == 0
    spec = Registry(registry).open("small-var").spec
    assert (spec.family, spec.codec.kind, spec.guidance) == ("var", "vqvae", "label-dropout")
    assert spec.networks["vqvae"].init == VQVAE_INIT


def test_convert_safetensors_with_arguments_and_class_names(tmp_path: Path, registry: Path) -> None:
    save_file(fill(build(EDM_INIT)).state_dict(), tmp_path / "plain.safetensors")
    (tmp_path / "init.json").write_text(json.dumps(EDM_INIT))
    (tmp_path / "classes.txt").write_text("red\ngreen\nblue\n")
    command = ["convert", tmp_path / "plain.safetensors", registry, "--classes", tmp_path / "classes.txt"]
    code, _, err = run(*command)
    assert code == 1
    assert "does not tell the network's constructor arguments" in err
    assert run(*command, "--init", tmp_path / "init.json")[0] == 0
    assert Registry(registry).open("plain").spec.class_names == ("red", "green", "blue")


def test_convert_by_a_catalogue_name(tmp_path: Path, registry: Path) -> None:
    init = {**EDM_INIT, "label_dim": 10}
    source = write_pickle(tmp_path / "edm-cifar10-32x32-cond-vp.pkl", init)
    assert run("convert", source, registry)[0] == 0
    spec = Registry(registry).open("edm-cifar10-cond-vp").spec
    assert spec.class_names[:2] == ("airplane", "automobile")
    assert spec.licence == "CC-BY-NC-SA-4.0"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("edm-cifar10-cond-vp", "has 3 classes, edm-cifar10-cond-vp has 10"),
        ("edm2-img64-s", "of the family edm, not edm2"),
        ("edm2-img512-s", "also needs"),
        ("Not A Name", "is no name for a model"),
        ("../up", "is no name for a model"),
    ],
)
def test_convert_to_what_it_is_not(name: str, message: str, tmp_path: Path, registry: Path) -> None:
    source = write_pickle(tmp_path / "a.pkl", EDM_INIT)
    code, _, err = run("convert", source, registry, "--as", name)
    assert code == 1
    assert message in err
    assert err.count("\n") == 1
    assert Registry(registry).names() == []


def test_convert_of_nan_needs_a_flag(tmp_path: Path, registry: Path) -> None:
    network = fill(build(EDM_INIT))
    network.state_dict()["model.map_layer0.bias"][0] = math.nan
    source = official.write_pickle(tmp_path / "nan.pkl", official.persistent(network, EDM_INIT))
    code, _, err = run("convert", source, registry)
    assert code == 1
    assert "model.map_layer0.bias" in err
    assert run("convert", source, registry, "--allow-non-finite")[0] == 0


def test_convert_of_another_schema(tmp_path: Path, registry: Path) -> None:
    network = fill(build(EDM_INIT))
    ema = official.persistent(network, {**EDM_INIT, "model_channels": 16})
    code, _, err = run("convert", official.write_pickle(tmp_path / "a.pkl", ema), registry)
    assert code == 1
    assert "of another shape" in err
    assert "in the file" in err


def test_tied_weights_are_written_apart(tmp_path: Path, registry: Path) -> None:
    network = fill(build(EDM_INIT))
    state = dict(network.state_dict())
    state["model.map_layer1.weight"] = state["model.map_layer1.weight"].T.contiguous().T
    state["model.map_layer1.bias"] = state["model.map_layer0.bias"]
    torch.save(state, tmp_path / "tied.pth")
    (tmp_path / "init.json").write_text(json.dumps(EDM_INIT))
    assert run("convert", tmp_path / "tied.pth", registry, "--init", tmp_path / "init.json")[0] == 0
    assert official.tensors_equal(Registry(registry).open("tied").network().state_dict(), state)


def test_list_show_and_verify(tmp_path: Path, registry: Path) -> None:
    write_pickle(tmp_path / "mine.pkl", EDM_INIT)
    for _ in range(2):
        run("convert", tmp_path / "mine.pkl", registry, "--licence", "MIT")
    code, out, _ = run("list", "--registry", registry)
    assert code == 0
    assert out.splitlines()[1].split() == ["mine", "2", "2", "MIT"]
    assert "var-d30-ddo" in out
    assert json.loads(run("show", "mine", "--registry", registry)[1])["name"] == "mine"
    assert (
        json.loads(run("show", "var-d16", "--registry", registry)[1])["title"] == "ImageNet 256x256, VAR-d16"
    )
    assert run("verify", "--registry", registry)[1].count("files as published") == 2
    (registry / "mine" / "versions" / "0002" / "weights.safetensors").write_bytes(b"")
    code, _, err = run("verify", "mine", "--registry", registry)
    assert code == 1
    assert "is not the file that was published" in err
    assert run("verify", "mine", "--version", 1, "--registry", registry)[0] == 0


@pytest.mark.parametrize("command", ["show", "verify", "pull"])
def test_unknown_names(command: str, registry: Path) -> None:
    code, _, err = run(command, "nothing", "--registry", registry)
    assert code == 1
    assert "nothing" in err
    assert err.count("\n") == 1


def test_it_runs_as_a_module(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "models", "convert", str(tmp_path / "absent.pkl"), str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr == f"error: there is no file {tmp_path / 'absent.pkl'}\n"
