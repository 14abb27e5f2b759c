"""A step of the loop: what it adds up, cuts, saves and reports."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_runs
import torch
from tiny_runs import losses, parameters_of, tiny_loop
from torch import nn
from torch._dynamo.utils import counters

from trainer.errors import NonFiniteLossError, TrainerError
from trainer.training.checkpoint import STATE_FILE, load_state
from trainer.training.config import TrainingConfig

KINDS = ["edm", "edm2"]


def trained(directory: Path, kind: str, **changes: Any) -> tuple[list[float], torch.Tensor]:
    """Return the losses of three steps and the weights after them."""
    directory.mkdir()
    loop = tiny_loop(directory, kind, images=24, **changes)
    return losses(loop), parameters_of(loop.network)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_run_gives_the_same_bits(kind: str, tmp_path: Path) -> None:
    first, second = (trained(tmp_path / name, kind) for name in "ab")
    assert first[0] == second[0]
    assert torch.equal(first[1], second[1])
    assert not torch.equal(first[1], trained(tmp_path / "c", kind, seed=1)[1])


@pytest.mark.parametrize("kind", KINDS)
def test_microbatches_add_up_to_the_batch(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for option in ("dropout", "label_dropout"):  # drawn for a microbatch
        if option in tiny_runs.NETWORKS[kind]:
            monkeypatch.setitem(tiny_runs.NETWORKS[kind], option, 0.0)
    whole = trained(tmp_path / "whole", kind)
    for microbatch in (4, 1):
        parts = trained(tmp_path / str(microbatch), kind, microbatch=microbatch)
        assert parts[0] == pytest.approx(whole[0], rel=1e-6)
        torch.testing.assert_close(parts[1], whole[1], rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_recomputed_activations_give_the_same_bits(kind: str, tmp_path: Path) -> None:
    """Dropout included: a recomputed block draws again what it drew."""
    kept = trained(tmp_path / "kept", kind)
    recomputed = trained(tmp_path / "recomputed", kind, activation_checkpointing=True)
    assert recomputed[0] == kept[0]
    assert torch.equal(recomputed[1], kept[1])


def test_recomputed_activations_are_not_kept(tmp_path: Path) -> None:
    def saved(checkpointing: bool) -> int:
        """Return the elements that one forward pass keeps for the backward pass."""
        sizes: dict[int, int] = {}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            sizes[tensor.data_ptr()] = tensor.numel()
            return tensor

        loop = tiny_loop(tmp_path, activation_checkpointing=checkpointing)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loop.network(torch.zeros(64, 12, 4, 4), torch.ones(64), torch.zeros(64, 2))
        return sum(sizes.values())

    assert saved(True) < 0.5 * saved(False)


@pytest.mark.slow
def test_a_compiled_loss_is_the_eager_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for option in ("dropout", "label_dropout"):  # compiled code draws other numbers
        monkeypatch.setitem(tiny_runs.NETWORKS["edm"], option, 0.0)
    eager = trained(tmp_path / "eager", "edm")
    counters.clear()
    compiled = trained(tmp_path / "compiled", "edm", compile=True, activation_checkpointing=True)
    assert counters["stats"]["unique_graphs"] == 1  # the loss is in the network's graph
    assert compiled[0] == pytest.approx(eager[0], rel=1e-5)
    torch.testing.assert_close(compiled[1], eager[1], rtol=0, atol=1e-4)


def test_bfloat16_is_for_the_passes_alone(tmp_path: Path) -> None:
    exact = trained(tmp_path / "exact", "edm")
    rounded = trained(tmp_path / "rounded", "edm", precision="bfloat16")
    assert rounded[0] == pytest.approx(exact[0], rel=0.05)
    assert rounded[0] != exact[0]
    state = load_state(tmp_path / "rounded")
    assert state is not None
    tensors = [leaf for leaf in tiny_runs.tensors_of(state).values() if isinstance(leaf, torch.Tensor)]
    assert {tensor.dtype for tensor in tensors} == {torch.float32}


def test_edm2s_weights_have_unit_norm_from_the_start_and_after_every_step(tmp_path: Path) -> None:
    loop = tiny_loop(tmp_path, "edm2", optimizer={"learning_rate": 0.5, "warmup_images": 0})
    assert_unit_norms(loop.network)
    before = parameters_of(loop.network)
    for _ in loop.run(until=16):
        assert_unit_norms(loop.network)
    assert (parameters_of(loop.network) - before).norm() > 1


def assert_unit_norms(network: nn.Module) -> None:
    for name, weight in network.named_parameters():
        if weight.ndim > 1:
            size = weight.detach().flatten(1).square().mean(dim=1).sqrt()
            torch.testing.assert_close(size, torch.ones_like(size), rtol=0, atol=1e-2, msg=name)


def test_the_gradient_is_reported_before_it_is_clipped(tmp_path: Path) -> None:
    """Clipped to almost nothing, two steps of Adam with a large eps move by almost nothing."""
    settings = {"learning_rate": 1e-2, "warmup_images": 0, "eps": 1.0}
    moves = {}
    for clip_norm in (1e-4, 1e4):
        (directory := tmp_path / str(clip_norm)).mkdir()
        loop = tiny_loop(directory, images=8, optimizer={**settings, "clip_norm": clip_norm})
        before = parameters_of(loop.network)
        (report,) = loop.run()
        assert report.values["gradient_norm"] > 1e-2
        moves[clip_norm] = (parameters_of(loop.network) - before).norm().item()
    assert moves[1e-4] < 2e-6
    assert moves[1e4] > 100 * moves[1e-4]


def test_reports_are_means_over_their_steps(tmp_path: Path) -> None:
    (tmp_path / "each").mkdir()
    each = list(tiny_loop(tmp_path / "each", images=40).run())
    (tmp_path / "pairs").mkdir()
    ticks = iter(range(1000))
    pairs = list(tiny_loop(tmp_path / "pairs", images=40, report_steps=2).run(clock=lambda: next(ticks)))
    assert [report.images for report in each] == [8, 16, 24, 32, 40]
    assert [report.images for report in pairs] == [16, 32, 40]  # the last one is shorter
    for name in ("loss", "gradient_norm"):
        single = [report.values[name] for report in each]
        means = [(single[0] + single[1]) / 2, (single[2] + single[3]) / 2, single[4]]
        assert [report.values[name] for report in pairs] == pytest.approx(means, rel=1e-6)
    assert [report.values["learning_rate"] for report in pairs] == pytest.approx([2.5e-3, 5e-3, 5e-3])
    assert [report.rate for report in pairs] == pytest.approx([16 / 1, 16 / 2, 8 / 2])


def test_a_run_may_be_made_in_pieces(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    whole = tiny_loop(tmp_path / "whole")
    expected = losses(whole)
    (tmp_path / "pieces").mkdir()
    pieces = tiny_loop(tmp_path / "pieces")
    found = [*losses(pieces, until=20), *losses(pieces, until=24), *losses(pieces, until=10**6)]
    assert found == expected  # 20 images are three steps of eight; no step is made twice
    assert torch.equal(parameters_of(pieces.network), parameters_of(whole.network))


def test_the_weights_are_a_copy_of_the_average(tmp_path: Path) -> None:
    loop = tiny_loop(tmp_path, averages=[{"kind": "power", "std": 0.1}, {"kind": "half-life", "images": 50}])
    losses(loop, until=24)
    power, half_life = loop.weights("power-0.100"), loop.weights("half-life-50")
    loop.network.load_state_dict(power)
    assert not torch.equal(power["model.map_layer0.weight"], half_life["model.map_layer0.weight"])
    kept = {name: tensor.clone() for name, tensor in power.items()}
    losses(loop)
    assert all(torch.equal(power[name], tensor) for name, tensor in kept.items())


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_state(tmp_path: Path) -> None:
    """The state behind the step that did it is not saved, although its own loss was finite."""
    losses(tiny_loop(tmp_path), until=24)
    good = (tmp_path / STATE_FILE).read_bytes()
    reports = tiny_loop(tmp_path, optimizer={"learning_rate": 1e30, "warmup_images": 0, "eps": 1e-30}).run()
    assert math.isfinite(next(reports).values["loss"])
    with pytest.raises(
        NonFiniteLossError, match=r"(loss|gradient norm) is (nan|inf) in step 4, at image 32; the"
    ):
        exhaust(reports)
    assert (tmp_path / STATE_FILE).read_bytes() == good
    assert [path.name for path in tmp_path.iterdir()] == [STATE_FILE]
    resumed = tiny_loop(tmp_path)
    assert resumed.seen == 24
    assert all(map(math.isfinite, losses(resumed)))


def exhaust(reports: Iterator[object]) -> None:
    for _ in reports:
        pass


def test_a_batch_that_cannot_be_shared_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="batch 8 is no multiple of microbatch 3"):
        TrainingConfig.model_validate(tiny_runs.training(microbatch=3))
    pair = tiny_runs.Processes(0, 2, torch.device("cpu"))
    for batch, microbatch in ((8, 8), (12, 4), (7, None), (1, None)):
        with pytest.raises(
            TrainerError, match=f"a batch of {batch} .* cannot be shared evenly by 2 processes"
        ):
            tiny_loop(tmp_path, processes=pair, batch=batch, microbatch=microbatch)


@pytest.mark.parametrize(("count", "microbatch"), [(1, 4), (2, 4), (4, 4), (2, None), (1, None)])
def test_processes_share_rows_without_gap_or_overlap(count: int, microbatch: int | None) -> None:
    shares = [
        tiny_runs.Processes(rank, count, torch.device("cpu")).share(range(32, 48), microbatch)
        for rank in range(count)
    ]
    parts = [part for share in shares for part in share]
    assert [row for part in parts for row in part] == list(range(32, 48))
    assert {len(part) for part in parts} == {microbatch or 16 // count}
    assert len({len(share) for share in shares}) == 1
