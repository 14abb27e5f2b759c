"""The networks give what the originals give, in the forms and sizes that the first vectors leave out."""

from __future__ import annotations

import itertools
import json
from typing import Any

import numpy as np
import pytest
import torch
from reference import (
    DATA,
    Reference,
    at_noise_level,
    fill,
    load,
    load_arrays,
    noise,
    relative_error,
    schema_of,
)
from torch import Tensor

from engines.base import ImageRequest
from engines.solvers import SolverTable, integrate, plan
from engines.token_sampling import truncate
from engines.var import VarEngine
from models import build
from models.spec import Churn, DiffusionDefaults, VarDefaults

ONE_EVALUATION = 1e-5
WHOLE_SAMPLER = 1e-4
EDM = {
    "edm-song-ve-tiny-cond": ["denoised", "denoised_nolabel", "denoised_augment"],
    "edm-song-vp-tiny-cond-extra": ["denoised_nolabel", "denoised_augment"],
    "edm-song-skip-tiny": ["denoised"],
    "edm-song-residual-tiny": ["denoised"],
    "edm-adm-tiny-cond": ["denoised", "denoised_nolabel"],
}
EDM2 = {
    "edm2-tiny-extra": ["denoised_soft", "denoised_nolabel"],
    "edm2-three-levels": ["denoised", "denoised_nolabel"],
}
LABELS = {"denoised": "labels", "denoised_augment": "labels", "denoised_soft": "soft_labels"}
VAR = ["var-tiny-shared", "var-tiny-nol2", "var-tiny-shared-nol2"]
FULL_SIZE: dict[str, dict[str, Any]] = json.loads((DATA / "full-size.json").read_text())["networks"]


@pytest.fixture(params=[*EDM, *EDM2, *VAR])
def reference(request: pytest.FixtureRequest) -> Reference:
    return load(request.param)


def test_tensors_are_the_originals(reference: Reference) -> None:
    network = build(reference.init, reference.spec.get("tokenizer"))
    assert schema_of(network) == reference.spec["tensors"]
    assert sum(parameter.numel() for parameter in network.parameters()) == reference.spec["parameters"]


@pytest.mark.parametrize(
    ("name", "output"), [(name, output) for name, outputs in {**EDM, **EDM2}.items() for output in outputs]
)
def test_denoised(name: str, output: str) -> None:
    reference = load(name)
    network = fill(build(reference.init))
    arguments = [reference.noisy(), reference["sigma"], reference.arrays.get(LABELS.get(output, ""))]
    if output == "denoised_augment":
        arguments.append(reference.input("augment_labels"))
    assert relative_error(network(*arguments), reference[output]) < ONE_EVALUATION


def test_edm2_uncertainty() -> None:
    reference = load("edm2-three-levels")
    network = fill(build(reference.init))
    assert relative_error(network.logvar(reference["sigma"]), reference["logvar"]) < ONE_EVALUATION


@pytest.mark.parametrize("name", VAR)
@pytest.mark.parametrize("output", ["logits", "logits_uncond"])
def test_var_logits(name: str, output: str) -> None:
    reference = load(name)
    var = fill(build(reference.init, reference.spec["tokenizer"]))
    labels = reference["labels"]
    if output == "logits_uncond":
        labels = torch.full_like(labels, reference.init["num_classes"])
    assert relative_error(var(labels, reference["var_input"]), reference[output]) < ONE_EVALUATION


@pytest.mark.parametrize("name", VAR)
def test_greedy_tokens(name: str) -> None:
    reference = load(name)
    tokenizer = reference.spec["tokenizer"]
    engine = VarEngine(
        fill(build(reference.init, tokenizer)),
        fill(build(tokenizer)),
        defaults=VarDefaults(),
        num_classes=reference.init["num_classes"],
        device=torch.device("cpu"),
        dtype=torch.float32,
        max_rows=2,
        capacity=4,
        greedy=True,
    )
    for weight in (0.0, 1.5):
        requests = [
            ImageRequest(class_id=int(label), seed=0, var_raw_cfg=weight) for label in reference["labels"]
        ]
        rows = [engine.open(engine.resolve(request)) for request in requests]
        for _ in reference.init["patch_nums"]:
            engine.step(rows)
        decoded = torch.stack([row.tokens for row in rows])
        assert torch.equal(decoded, reference[f"greedy_tokens_varcfg{weight}"])
        for row in rows:
            engine.close(row)


@pytest.mark.parametrize(("top_k", "top_p"), [(3, 0.0), (0, 0.6), (5, 0.8), (0, 0.95)])
def test_truncation(top_k: int, top_p: float) -> None:
    reference = load_arrays("var-filter")
    kept = truncate(reference["logits"], top_k, top_p).isfinite()
    assert torch.equal(kept, reference[f"kept_topk{top_k}_topp{top_p:g}"])


def test_truncation_keeps_ties() -> None:
    reference = load_arrays("var-filter")
    assert torch.equal(truncate(reference["tied_logits"], 3, 0.0).isfinite(), reference["kept_tied_topk3"])


def test_euler() -> None:
    reference = load("edm-song-vp-tiny-cond-extra")
    sample = _sample(reference, plan("euler", 6, DiffusionDefaults()))
    assert relative_error(sample, reference["euler6"]) < WHOLE_SAMPLER


def test_stochastic_heun() -> None:
    reference = load("edm-song-vp-tiny-cond-extra")
    churn = Churn(**{name.lower(): value for name, value in reference.spec["churn"].items()})
    sample = _sample(reference, plan("heun-stochastic", 6, DiffusionDefaults(churn=churn)))
    assert relative_error(sample, reference["heun6_churn"]) < WHOLE_SAMPLER


def _sample(reference: Reference, table: SolverTable) -> Tensor:
    """Follow a table; the first step's noise level lies above the churned range, so draws begin at step 1."""
    network = fill(build(reference.init))
    latents = reference.input("latents").double()
    labels = reference["labels"][: len(latents)]
    steps = itertools.count(1)
    return integrate(
        table,
        lambda x, sigma: network(x, torch.full((len(x),), sigma), labels),
        latents,
        lambda: reference.input("churn_noise", next(steps)).double(),
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", FULL_SIZE)
def test_full_size(name: str) -> None:
    expected = FULL_SIZE[name]
    arrays = load_arrays("full-size")
    probes = arrays[name]
    network = fill(build(expected["init"]))
    with torch.inference_mode():
        if expected["output"] == "denoised":
            output = network(*_denoiser_arguments(expected))
        elif expected["output"] == "logits":
            drawn = expected["inputs"]["var_input"]
            output = network(torch.tensor([expected["label"]]), noise(drawn["tag"], drawn["shape"]))
        else:
            output = network.decode(arrays[f"{name}/tokens"].long())
    assert list(output.shape) == expected["shape"]
    values = output.flatten().double()
    places = torch.from_numpy(np.linspace(0, len(values) - 1, len(probes)).round().astype(np.int64))
    assert relative_error(values[places], probes) < ONE_EVALUATION
    measured = [values.mean(), values.std(correction=0), values.norm()]
    assert measured == pytest.approx([expected["mean"], expected["std"], expected["norm"]], rel=1e-4)


def _denoiser_arguments(expected: dict[str, Any]) -> list[Tensor]:
    drawn, sigma = expected["inputs"]["x"], torch.tensor([expected["sigma"]])
    labels = torch.eye(expected["init"]["label_dim"])[[expected["label"]]]
    return [at_noise_level(noise(drawn["tag"], drawn["shape"]), sigma), sigma, labels]
