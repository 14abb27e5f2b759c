"""Batch sizes are used together only if they agree on every bit."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from engines.buckets import Buckets, powers_of_two
from engines.errors import EngineError

SIZES = [1, 2, 4, 8]


def _sums(exact: Callable[[int], float]) -> Callable[[int], Tensor]:
    return lambda size: torch.full((size, 3), exact(size))


def test_sizes_that_agree_are_used_together() -> None:
    assert Buckets.find(_sums(lambda _: 1.0), SIZES, 0.5).sizes == (1, 2, 4, 8)


def test_a_bit_of_difference_keeps_sizes_apart() -> None:
    odd_one = _sums(lambda size: 1.0 + (size == 1) * torch.finfo(torch.float32).eps)
    assert Buckets.find(odd_one, SIZES, 8.0).sizes == (2, 4, 8)


def test_where_calls_are_cheap_single_rows_beat_padding() -> None:
    odd_one = _sums(lambda size: float(size == 1))
    assert Buckets.find(odd_one, SIZES, 0.1).sizes == (1,)


def test_without_agreement_one_size_serves_all() -> None:
    buckets = Buckets.find(_sums(float), SIZES, 100.0)
    assert buckets.sizes == (8,)
    assert list(buckets.calls(3)) == [(3, [0, 1, 2, 2, 2, 2, 2, 2])]


def test_sizes_whose_rows_depend_on_their_position_are_not_used() -> None:
    def run(size: int) -> Tensor:
        return torch.arange(size).float() if size > 2 else torch.zeros(size)

    assert Buckets.find(run, SIZES, 100.0).sizes == (1, 2)
    with pytest.raises(EngineError, match="position"):
        Buckets.find(run, [4, 8], 1.0)


@pytest.mark.parametrize("call_cost", [0.0, 0.5, 20.0])
@pytest.mark.parametrize("sizes", [(1,), (2,), (2, 4), (1, 2, 4, 8)])
@pytest.mark.parametrize("rows", [1, 2, 3, 5, 8, 13])
def test_every_row_is_computed_once(sizes: tuple[int, ...], call_cost: float, rows: int) -> None:
    calls = list(Buckets(sizes, call_cost).calls(rows))
    assert [row for count, given in calls for row in given[:count]] == list(range(rows))
    for count, given in calls:
        assert len(given) in sizes
        assert set(given[count:]) <= {given[count - 1]}


@pytest.mark.parametrize(("call_cost", "sizes"), [(0.0, [4, 1]), (2.0, [4, 1]), (4.0, [8])])
def test_five_rows_are_padded_or_split_as_is_cheaper(call_cost: float, sizes: list[int]) -> None:
    assert sorted(len(given) for _, given in Buckets((1, 2, 4, 8), call_cost).calls(5)) == sorted(sizes)


def test_powers_of_two() -> None:
    assert [powers_of_two(most) for most in (1, 2, 7, 16)] == [[1], [1, 2], [1, 2, 4], [1, 2, 4, 8, 16]]
