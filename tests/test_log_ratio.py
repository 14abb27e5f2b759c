"""log p_theta - log p_ref: what it is, and why it is a sum in float32."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import toys
from torch import Tensor, nn
from toys import SIGMA_DATA, ImagePairs

from trainer.objectives.ddo import ddo_loss
from trainer.objectives.log_ratio import (
    denoising_log_density,
    denoising_log_ratio,
    token_log_probability,
    token_log_ratio,
)

SHAPE = (3, 16, 16)
BETA = 0.05


class Counted:
    """A network that counts its calls."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.calls = 0

    def __call__(self, *arguments: Tensor) -> Tensor:
        self.calls += 1
        output: Tensor = self.network(*arguments)
        return output


def log_ratio(network: nn.Module, reference: nn.Module, pairs: ImagePairs) -> Tensor:
    return denoising_log_ratio(network, reference, *pairs.stacked, **pairs.draws, sigma_data=SIGMA_DATA)


def four_evaluations(network: nn.Module, reference: nn.Module, pairs: ImagePairs) -> Tensor:
    """Return r image by image, each of the four evaluations on its own, in the dtype of `network`."""
    dtype = next(network.parameters()).dtype

    def error(model: nn.Module, image: Tensor, label: Tensor, row: int) -> Tensor:
        sigma, noise = pairs.sigma[row].to(dtype), pairs.noise[row].to(dtype)
        x = image.to(dtype)
        denoised = model((x + sigma * noise)[None], sigma[None], label[None])[0].to(dtype)
        return (1 / sigma**2 + 1 / SIGMA_DATA**2) * (denoised - x).pow(2).sum()

    ratios = []
    for images, labels in ((pairs.real, pairs.real_labels), (pairs.fake, pairs.fake_labels)):
        for row, (image, label) in enumerate(zip(images, labels, strict=True)):
            ratios.append(error(reference, image, label, row) - error(network, image, label, row))
    return torch.stack(ratios)


@pytest.fixture
def reference() -> nn.Module:
    return toys.toy_denoiser(channels=3, width=24, kernel=3)


@pytest.fixture
def pairs() -> ImagePairs:
    return ImagePairs.draw(16, SHAPE)


def double(pairs: ImagePairs) -> ImagePairs:
    return replace(pairs, **{name: value.double() for name, value in vars(pairs).items()})


def relative(found: Tensor, exact: Tensor) -> float:
    return ((found.double() - exact.double()).norm() / exact.double().norm()).item()


def test_it_is_the_difference_of_four_evaluations(reference: nn.Module, pairs: ImagePairs) -> None:
    network = toys.moved(reference, 0.1)
    expected = four_evaluations(network.double(), toys.frozen(reference).double(), pairs)
    found = log_ratio(network, reference.double(), double(pairs))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_a_real_network_is_called_once_for_all_images() -> None:
    pairs = ImagePairs.draw(4, (3, 4, 4))
    reference = toys.tiny_edm()
    network, still = Counted(toys.moved(reference, 0.1)), Counted(reference)
    found = denoising_log_ratio(network, still, *pairs.stacked, **pairs.draws, sigma_data=SIGMA_DATA)
    assert (network.calls, still.calls) == (1, 1)
    expected = four_evaluations(network.network, reference, pairs)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    assert expected.abs().min() > 0.1


def test_it_is_the_networks_density_less_the_references(reference: nn.Module, pairs: ImagePairs) -> None:
    network = toys.moved(reference, 0.1)
    arguments = {**pairs.draws, "sigma_data": SIGMA_DATA}
    kept = denoising_log_density(reference, *pairs.stacked, **arguments).detach()
    found = denoising_log_density(network, *pairs.stacked, **arguments) - kept
    assert torch.equal(found, log_ratio(network, reference, pairs))


def test_equal_networks_have_a_ratio_of_zero_and_nothing_less(
    reference: nn.Module, pairs: ImagePairs
) -> None:
    ratio = log_ratio(reference, toys.frozen(reference), pairs)
    assert torch.equal(ratio, torch.zeros(32))
    assert log_ratio(toys.moved(reference, 1e-3), reference, pairs).abs().min() > 0


def test_no_gradient_reaches_the_reference(reference: nn.Module, pairs: ImagePairs) -> None:
    network = toys.moved(reference, 0.1)
    torch.autograd.backward(log_ratio(network, reference, pairs).sum())
    assert all(parameter.grad is None for parameter in reference.parameters())
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_autocast_around_it_changes_no_bit(
    precision: torch.dtype, reference: nn.Module, pairs: ImagePairs
) -> None:
    network = toys.moved(reference, 1e-3)
    expected = log_ratio(network, reference, pairs)
    with torch.autocast("cpu", precision):
        found = log_ratio(network, reference, pairs)
        in_half = four_evaluations(network, reference, pairs)
    assert torch.equal(found, expected)
    assert not torch.equal(in_half, expected)


@pytest.mark.parametrize(
    ("precision", "least", "most"),
    [(None, 0.0, 0.005), (torch.float16, 0.1, 1.0), (torch.bfloat16, 1.0, 5.0)],
    ids=["float32", "float16", "bfloat16"],
)
def test_half_precision_loses_the_ratio(
    precision: torch.dtype | None, least: float, most: float, reference: nn.Module, pairs: ImagePairs
) -> None:
    """After a step of one part in a thousand."""
    network = toys.moved(reference, 1e-3)
    with torch.autocast("cpu", precision, enabled=precision is not None), torch.no_grad():
        found = four_evaluations(network, reference, pairs)
    exact = four_evaluations(network.double(), reference.double(), pairs)
    assert least <= relative(found, exact) < most


def test_a_mean_in_place_of_the_sum_switches_the_discriminator_off(
    reference: nn.Module, pairs: ImagePairs
) -> None:
    """With the beta of a sum the gradient is smaller by the dimension, and sigmoid(beta r) stays at 1/2."""
    network, dimensions = toys.moved(reference, 0.3), math.prod(SHAPE)
    summed = log_ratio(network, reference, pairs)
    mean = summed / dimensions
    strong, weak = (
        toys.gradient(ddo_loss(*ratio.chunk(2), 1.0, BETA), network, retain_graph=True)
        for ratio in (summed, mean)
    )
    assert weak.norm() / strong.norm() == pytest.approx(1 / dimensions, rel=0.5)
    assert away_from_half(summed) > 0.1
    assert away_from_half(mean) < 0.001


def away_from_half(ratio: Tensor) -> Tensor:
    """Return how far the discriminator's verdict lies from 1/2 on average."""
    return ((BETA * ratio).sigmoid() - 0.5).abs().mean()


def test_the_probabilities_of_all_token_sequences_sum_to_one() -> None:
    batch = toys.all_token_batches()
    probabilities = token_log_probability(toys.tiny_var(), *batch).double().exp()
    assert probabilities.sum().item() == pytest.approx(1, abs=1e-6)
    assert probabilities.max() > 2 * probabilities.min()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_token_probability_is_the_product_over_all_tokens(dtype: torch.dtype) -> None:
    """The logits may be of half precision; the softmax over them is not."""
    batch = toys.draw_tokens(6, seed=0)
    logits = toys.tiny_var()(batch.class_ids, batch.var_input).to(dtype)
    found = token_log_probability(lambda class_ids, var_input: logits, *batch)
    shares = logits.double().exp()
    chosen = shares.gather(2, batch.ids[..., None])[..., 0] / shares.sum(2)
    assert found.dtype is torch.float32
    torch.testing.assert_close(found.double(), chosen.prod(1).log(), rtol=1e-5, atol=1e-5)


def test_a_token_ratio_is_exact_and_leaves_the_reference_alone() -> None:
    batch = toys.draw_tokens(6, seed=0)
    reference = toys.tiny_var()
    network = toys.moved(reference, 0.3)
    ratio = token_log_ratio(network, reference, *batch)
    expected = token_log_probability(network, *batch) - token_log_probability(reference, *batch)
    assert torch.equal(ratio, expected)
    assert ratio.abs().min() > 1e-3
    torch.autograd.backward(ratio.sum())
    assert all(parameter.grad is None for parameter in reference.parameters())


def test_equal_token_predictors_have_a_ratio_of_zero_but_for_rounding() -> None:
    """Without a gradient attention takes another kernel."""
    batch, network = toys.draw_tokens(6, seed=0), toys.tiny_var()
    ratio = token_log_ratio(network, toys.frozen(network), *batch)
    assert ratio.abs().max() < 1e-5
    assert token_log_ratio(toys.moved(network, 1e-3), network, *batch).abs().max() > 1e-4
