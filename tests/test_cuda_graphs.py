"""Graphs captured once give what the eager engines give, whatever is replayed in between."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from graph_double import GraphDouble
from reference import load
from tiny_programs import SMALL_EDM, SMALL_EDM2, prepared
from var_tiny import make, tiny_engine, tiny_var

from engines.base import ImageRequest
from engines.cuda import CudaDevice
from engines.diffusion import SLOTS
from engines.errors import EngineError
from engines.graphed_calls import GraphedCalls
from engines.graphed_scale_decoder import GraphedScaleDecoder
from engines.programs.diffusion_step import DiffusionStep

CPU = torch.device("cpu")


def step_inputs(rows: int, *, guided: bool) -> list[torch.Tensor]:
    drawn = torch.Generator().manual_seed(rows)
    return [
        torch.randn(rows, SLOTS, 3, 8, 8, generator=drawn),
        torch.rand(rows, generator=drawn) + 0.1,
        torch.arange(rows) % 10,
        torch.randn(rows, SLOTS, SLOTS + 1, generator=drawn),
        *([torch.full((rows,), 1.5)] if guided else []),
    ]


def run_step(step: DiffusionStep, *inputs: torch.Tensor) -> torch.Tensor:
    scale = inputs[4] if len(inputs) == 5 else None
    result: torch.Tensor = step(*inputs[:4], scale)
    return result


@torch.inference_mode()
def test_a_graph_computes_what_its_function_computes() -> None:
    network = prepared(SMALL_EDM2, torch.float32).eval()
    function, device = partial(run_step, DiffusionStep(network, network)), GraphDouble()
    graphed = GraphedCalls(function, device)
    cases = [step_inputs(rows, guided=guided) for rows in (1, 2) for guided in (False, True)]
    for case in [*cases, *cases[::-1]]:
        case[0] = case[0] + 1  # other values than at the capture
        assert torch.equal(graphed(*case), function(*case))
    assert (device.captures, device.replays) == (4, 8)


def test_results_have_memory_of_their_own() -> None:
    doubled = GraphedCalls(lambda x: x * 2, GraphDouble())
    first = doubled(torch.ones(2))
    doubled(torch.zeros(2))
    assert first.tolist() == [2, 2]


def test_the_double_sees_what_a_gpu_would_not_forgive() -> None:
    """A function that keeps a tensor from call to call, or decides by Python, is wrong when replayed."""
    calls = iter(range(10))
    counted = GraphedCalls(lambda x: x + next(calls), GraphDouble())
    assert counted(torch.zeros(1)).item() == counted(torch.zeros(1)).item() == 1


@pytest.mark.parametrize("weight", [0.0, 1.5])
def test_var_decodes_the_vectors_by_graphs(weight: float) -> None:
    reference, device = load("var-tiny"), GraphDouble()
    engine = tiny_engine(
        max_rows=2, capacity=2, greedy=True, transformer=partial(GraphedScaleDecoder, graphs=device)
    )
    captured = device.captures
    labels = reference["labels"].tolist()
    rows = make(engine, [ImageRequest(class_id=label, seed=0, var_raw_cfg=weight) for label in labels])
    for row, expected in zip(rows, reference[f"greedy_tokens_varcfg{weight}"], strict=True):
        assert torch.equal(row.tokens, expected)
    assert device.captures == captured  # at the start, never while images are made


class TestWithoutAGpu:
    """The meta device has no values either: what asks for one, or for a tensor of the host, fails there."""

    @pytest.mark.parametrize("guided", [False, True])
    @pytest.mark.parametrize("init", [SMALL_EDM, SMALL_EDM2], ids=["edm", "edm2"])
    def test_a_step_asks_for_no_values(self, init: dict[str, object], guided: bool) -> None:
        network = prepared(init, torch.bfloat16).eval().to("meta")
        inputs = [given.to("meta") for given in step_inputs(2, guided=guided)]
        result = run_step(DiffusionStep(network, network), *inputs)
        assert (result.device.type, result.dtype) == ("meta", torch.float32)

    @pytest.mark.parametrize("asking", [lambda x: x * x.max().item(), lambda x: x + torch.ones(2)])
    def test_what_asks_is_noticed(self, asking: Callable[[torch.Tensor], torch.Tensor]) -> None:
        with pytest.raises((RuntimeError, NotImplementedError)):
            asking(torch.ones(2, device="meta"))

    def test_the_transformer_asks_for_no_values(self) -> None:
        var = tiny_var().eval().to("meta")
        var.blocks.to(torch.bfloat16)
        class_ids = torch.zeros(2, dtype=torch.int64, device="meta")
        logits = var.logits(var.embed_classes(class_ids), var.modulation(class_ids))
        assert logits.device.type == "meta"

    def test_a_missing_gpu_is_told(self) -> None:
        with pytest.raises(EngineError, match="an NVIDIA GPU is needed: cpu cannot be used"):
            CudaDevice(CPU)
