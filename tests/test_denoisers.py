"""One evaluation of the EDM and EDM2 networks is the original's; a wrong one is noticed."""

from __future__ import annotations

import json

import pytest
import torch
from reference import DATA, at_noise_level, fill, load_arrays, noise, relative_error
from torch import Tensor, nn

from models import build
from models.errors import ModelError
from models.networks import force_unit_weights

ONE_EVALUATION = 1e-5
NAMES = ["edm-song-vp-tiny-cond", "edm-song-vp-tiny-uncond", "edm2-tiny"]


def network_of(name: str) -> nn.Module:
    return fill(build(json.loads((DATA / f"{name}.json").read_text())["init"]))


def arguments_of(name: str) -> tuple[Tensor, Tensor, Tensor | None]:
    arrays = load_arrays(name)
    sigma = arrays["sigma"].float()
    x = at_noise_level(noise(f"{name}/x", (4, 3, 16, 16)), sigma)
    return x, sigma, arrays["labels"].float() if "labels" in arrays else None


@pytest.mark.parametrize("name", NAMES)
def test_denoised_is_the_originals(name: str) -> None:
    denoised = network_of(name)(*arguments_of(name))
    assert relative_error(denoised, load_arrays(name)["denoised"]) < ONE_EVALUATION


@pytest.mark.parametrize("name", NAMES)
def test_folding_weights_for_inference_changes_nothing(name: str) -> None:
    network = network_of(name)
    network.prepare_inference(torch.float32)
    assert relative_error(network(*arguments_of(name)), load_arrays(name)["denoised"]) < ONE_EVALUATION
    network.prepare_inference(torch.float32)
    assert relative_error(network(*arguments_of(name)), load_arrays(name)["denoised"]) < ONE_EVALUATION


def test_the_uncertainty_is_the_originals() -> None:
    network = network_of("edm2-tiny")
    for _ in range(2):
        logvar = network.logvar(arguments_of("edm2-tiny")[1])
        assert relative_error(logvar, load_arrays("edm2-tiny")["logvar"]) < ONE_EVALUATION
        network.prepare_inference(torch.float32)


@pytest.mark.parametrize("name", ["edm-song-vp-tiny-cond", "edm2-tiny"])
def test_wrong_inputs_give_other_outputs(name: str) -> None:
    """The tolerance is tight enough to see a swapped label or noise level."""
    x, sigma, labels = arguments_of(name)
    network, expected = network_of(name), load_arrays(name)["denoised"]
    assert labels is not None
    assert relative_error(network(x, sigma, labels.roll(1, 0)), expected) > 100 * ONE_EVALUATION
    assert relative_error(network(x, sigma.roll(1, 0), labels), expected) > 100 * ONE_EVALUATION
    assert relative_error(network(x, sigma, None), expected) > 100 * ONE_EVALUATION


def test_training_and_evaluation_give_the_same_without_dropout() -> None:
    init = {**json.loads((DATA / "edm-song-vp-tiny-cond.json").read_text())["init"], "dropout": 0.0}
    network = fill(build(init))
    arguments = arguments_of("edm-song-vp-tiny-cond")
    torch.testing.assert_close(network.train()(*arguments), network.eval()(*arguments))


def test_training_normalises_the_stored_weights() -> None:
    """Forced weight normalisation leaves unit-variance weights behind, and is at rest there."""
    network, arguments = network_of("edm2-tiny"), arguments_of("edm2-tiny")
    force_unit_weights(network)
    for name, parameter in network.unet.named_parameters():
        if parameter.ndim >= 2:
            norms = parameter.flatten(1).norm(dim=1) / parameter[0].numel() ** 0.5
            torch.testing.assert_close(norms, torch.ones_like(norms), atol=1e-2, rtol=0, msg=name)
    at_rest = network(*arguments)
    force_unit_weights(network)
    assert relative_error(network(*arguments), at_rest) < 1e-5


@pytest.mark.parametrize(
    ("init", "message"),
    [
        ({"img_resolution": 16}, "name no class"),
        ({"class_name": "Unknown"}, "unknown network class 'Unknown'; known: EDMPrecond"),
        ({"class_name": "EDMPrecond", "img_resolution": 16, "img_channels": 3, "wings": 2}, "wings"),
    ],
)
def test_arguments_that_fit_no_network_are_named(init: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        build(init)
