"""What is drawn for a row does not depend on who draws it, nor with which others."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import tiny_runs
import torch
from rich.progress import Progress

from models import build
from models.networks.vqvae import VQVAE
from trainer.data.draws import Draws
from trainer.data.order import Order
from trainer.data.tokens import TokenizedImages
from trainer.objectives.base import Objective
from trainer.objectives.config import Denoising
from trainer.objectives.diffusion import DiffusionObjective
from trainer.objectives.tokenizer import TokenizerObjective
from trainer.objectives.tokens import LikelihoodObjective

CPU = torch.device("cpu")


def test_a_rows_numbers_do_not_depend_on_the_split() -> None:
    draws = Draws(seed=3, stream=1)
    together = draws.normal(range(10, 22), (2, 3))
    apart = [draws.normal(range(start, start + 4), (2, 3)) for start in (10, 14, 18)]
    assert torch.equal(together, torch.cat(apart))
    assert torch.equal(draws.uniform(range(5)), torch.cat([draws.uniform(range(i, i + 1)) for i in range(5)]))


def test_rows_streams_and_seeds_draw_apart() -> None:
    drawn = [
        Draws(seed, stream).normal(range(row, row + 1), (4,))
        for seed, stream, row in itertools.product(range(3), range(3), range(3))
    ]
    assert len({tuple(numbers.flatten().tolist()) for numbers in drawn}) == 27


def test_draws_are_standard_normal_and_uniform() -> None:
    draws = Draws(seed=0, stream=0)
    normal = draws.normal(range(200), (100,))
    assert abs(normal.mean().item()) < 0.03
    assert abs(normal.std().item() - 1) < 0.03
    uniform = draws.uniform(range(4000))
    assert 0 <= uniform.min() < 0.01
    assert 0.99 < uniform.max() < 1
    assert abs(uniform.mean().item() - 0.5) < 0.02


@pytest.mark.parametrize("count", [1, 7, 16])
def test_each_pass_is_a_new_permutation(count: int) -> None:
    order = Order(count, seed=5)
    passes = [order[start : start + count] for start in range(0, 4 * count, count)]
    assert all(sorted(each) == list(range(count)) for each in passes)
    assert count == 1 or len({tuple(each) for each in passes}) > 1


def test_the_order_is_the_same_however_it_is_read() -> None:
    whole = Order(7, seed=5)[0:40]
    pieces = [Order(7, seed=5)[start : start + 5] for start in range(35, -1, -5)]
    np.testing.assert_array_equal(np.concatenate(pieces[::-1]), whole)
    assert not np.array_equal(Order(7, seed=6)[0:40], whole)


def objectives() -> dict[str, Objective[tuple[torch.Tensor, ...]]]:
    images = tiny_runs.images()
    vqvae = build(tiny_runs.NETWORKS["vqvae"])
    assert isinstance(vqvae, VQVAE)
    plain = tiny_runs.ArrayImages(images.images, images.labels, images.class_names)
    tokens = TokenizedImages.encode(vqvae, plain, Progress(disable=True))
    return {
        "diffusion": DiffusionObjective(images, Denoising(), seed=1, device=CPU),
        "tokenizer": TokenizerObjective(plain, seed=1, device=CPU),
        "likelihood": LikelihoodObjective(tokens, 0.5, seed=1, device=CPU),
    }


@pytest.mark.parametrize("kind", ["diffusion", "tokenizer", "likelihood"])
def test_a_batch_is_its_rows(kind: str, tmp_path: Path) -> None:
    objective = objectives()[kind]
    whole, halves = objective.batch(range(12, 20)), [objective.batch(range(s, s + 4)) for s in (12, 16)]
    if isinstance(whole, torch.Tensor):
        whole, halves = (whole,), [(half,) for half in halves]
    for tensor, *parts in zip(whole, *halves, strict=True):
        torch.testing.assert_close(torch.cat(parts), tensor, rtol=0, atol=1e-6)
