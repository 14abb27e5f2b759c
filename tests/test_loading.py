"""A version on disk becomes an engine, whatever its family, and answers over HTTP."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fake_server import serving_app, wait_until_ready
from PIL import Image
from reference import DATA, fill, load_arrays
from safetensors.torch import save_file

import engines
from engines.errors import EngineError
from engines.settings import EngineSettings
from models import build
from models.spec import (
    DiffusionDefaults,
    Lineage,
    ModelSpec,
    NetworkSpec,
    PixelCodec,
    VarDefaults,
    VqvaeCodec,
)
from models.version import ModelVersion, seal
from server.app import create_app
from server.settings import Settings

FLOAT32 = EngineSettings(precision="float32", max_rows=4)
TEN = tuple("abcdefghij")


def init_of(name: str) -> dict[str, Any]:
    return dict(json.loads((DATA / f"{name}.json").read_text())["init"])


def write_version(directory: Path, networks: dict[str, tuple[str, str]], **spec: Any) -> ModelVersion:
    """Seal a version of networks filled by the vectors' rule: name -> (schema, salt)."""
    tokenizer = init_of(networks["vqvae"][0]) if "vqvae" in networks else None
    specs = {}
    for name, (schema, salt) in networks.items():
        init = init_of(schema)
        network = fill(build(init, tokenizer if name == "main" else None), salt)
        save_file(dict(network.state_dict()), directory / f"{name}.safetensors")
        specs[name] = NetworkSpec(init=init, weights=f"{name}.safetensors")
    fields = {"class_names": TEN, "licence": "Apache-2.0", "lineage": Lineage(source="a test"), **spec}
    return seal(directory, ModelSpec(networks=specs, **fields))


def var_version(directory: Path) -> ModelVersion:
    return write_version(
        directory,
        {"vqvae": ("var-tiny.vqvae", ""), "main": ("var-tiny", "")},
        name="var-tiny",
        family="var",
        codec=VqvaeCodec(),
        defaults=VarDefaults(),
    )


def edm2_version(directory: Path, **spec: Any) -> ModelVersion:
    return write_version(
        directory,
        {"main": ("edm2-tiny", ""), "guide": ("edm2-tiny-uncond", "guide/")},
        name="edm2-tiny",
        family="edm2",
        **{"codec": PixelCodec(), "defaults": DiffusionDefaults(steps=4), "guidance": "guide", **spec},
    )


def unconditional_version(directory: Path) -> ModelVersion:
    return write_version(
        directory,
        {"main": ("edm-song-vp-tiny-uncond", "")},
        name="uncond",
        family="edm",
        codec=PixelCodec(),
        defaults=DiffusionDefaults(steps=3),
        class_names=(),
    )


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One server of three families."""
    versions = [
        make(tmp_path_factory.mktemp("version"))
        for make in (var_version, edm2_version, unconditional_version)
    ]
    app = create_app(Settings(engine=FLOAT32), versions, engines.load)
    with serving_app(app) as url, httpx.Client(base_url=url, timeout=60) as client:
        wait_until_ready(client, 240)
        yield client


def generate(client: httpx.Client, **body: Any) -> tuple[dict[str, Any], np.ndarray]:
    answer = client.post("/generate", json=body)
    assert answer.status_code == 200, answer.text
    encoded = base64.b64decode(answer.json()["images"][0]["image"])
    return answer.json(), np.asarray(Image.open(io.BytesIO(encoded)))


def test_var_answers_over_http(client: httpx.Client) -> None:
    answer, image = generate(client, model="var-tiny", class_id=3, seed=1, top_k=20, temperature=0.9)
    assert image.shape == (64, 64, 3)
    assert answer["parameters"] == {
        "class_id": 3,
        "class_name": "d",
        "cfg": 1.0,
        "temperature": 0.9,
        "top_k": 20,
        "top_p": 0.0,
    }
    _, again = generate(client, model="var-tiny", class_id=3, seed=1, top_k=20, temperature=0.9)
    np.testing.assert_array_equal(image, again)


def test_var_greedy_by_top_k_1_is_the_originals_decoding(client: httpx.Client) -> None:
    """Keeping the best token alone leaves nothing to draw: the vectors' greedy images, over HTTP."""
    arrays = load_arrays("var-tiny")
    for value in ("0.0", "1.5"):
        for label, expected in zip(arrays["labels"], arrays[f"greedy_image_varcfg{value}"], strict=True):
            body = {"model": "var-tiny", "class_id": int(label), "top_k": 1, "var_raw_cfg": float(value)}
            _, image = generate(client, **body)
            levels = (expected * 255).round().permute(1, 2, 0).numpy()
            assert np.abs(image.astype(int) - levels.astype(int)).max() <= 1


def test_edm2_is_guided_by_its_guide(client: httpx.Client) -> None:
    _, plain = generate(client, model="edm2-tiny", class_id=3, seed=1)
    _, one = generate(client, model="edm2-tiny", class_id=3, seed=1, cfg=1.0)
    _, guided = generate(client, model="edm2-tiny", class_id=3, seed=1, cfg=1.8)
    np.testing.assert_array_equal(plain, one)
    assert (plain != guided).any()


def test_an_unconditional_model_takes_no_class(client: httpx.Client) -> None:
    answer, image = generate(client, model="uncond", seed=1)
    assert image.shape == (16, 16, 3)
    assert "class_id" not in answer["parameters"]
    refused = client.post("/generate", json={"model": "uncond", "class_id": 0})
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "class_id")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"model": "var-tiny", "class_id": 0, "steps": 4}, "steps"),
        ({"model": "var-tiny", "class_id": 0, "top_k": 129}, "top_k"),
        ({"model": "edm2-tiny", "class_id": 0, "temperature": 1.0}, "temperature"),
        ({"model": "uncond", "cfg": 1.5}, "cfg"),
    ],
)
def test_what_a_family_cannot_do_is_refused(client: httpx.Client, body: dict[str, Any], field: str) -> None:
    refused = client.post("/generate", json=body)
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, field)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    version = edm2_version(tmp_path)
    with pytest.raises(EngineError, match="device 'abacus' cannot be used"):
        engines.load(version, EngineSettings(device="abacus"))
    tokens = ModelVersion(tmp_path, version.spec.model_copy(update={"codec": VqvaeCodec()}))
    with pytest.raises(EngineError, match="cannot decode with the codec 'vqvae'"):
        engines.load(tokens, FLOAT32)
