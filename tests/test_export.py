"""An exported program computes what the reference vectors say, and the check notices when it does not."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

import pytest
import torch
from reference import at_noise_level, load, load_arrays, noise, relative_error
from tiny_programs import MAX_ROWS, SMALL_EDM, diffusion, network, prepared, var

from engines.errors import EngineError
from engines.export import digest
from engines.export.digest import program_digest
from engines.export.onnx import OnnxCache
from engines.export.parity import TOLERANCES, check, errors, run_onnx
from engines.programs.diffusion_step import DiffusionStep
from engines.programs.program import Program, Range

ONE_EVALUATION = 1e-5
FLOAT32 = TOLERANCES[torch.float32]


@pytest.fixture(scope="module")
def small() -> Program:
    net = prepared(SMALL_EDM, torch.float32)
    return diffusion(DiffusionStep(net, net))["guided"]


@pytest.fixture(scope="module")
def transformer() -> dict[str, Program]:
    return var(torch.float32)


def evaluate(exports: OnnxCache, program: Program, name: str, **more: torch.Tensor) -> torch.Tensor:
    """Return the denoised estimate of the vectors' inputs: the update is set to write it into slot 0."""
    arrays = load_arrays(name)
    sigma = arrays["sigma"].float()
    given = {
        "state": at_noise_level(noise(f"{name}/x", (4, 3, 16, 16)), sigma)[:, None].repeat(1, 3, 1, 1, 1),
        "sigma": sigma,
        "update": torch.eye(4)[[3, 0, 0]].repeat(4, 1, 1),
        "class_ids": arrays["labels"].argmax(dim=1),
        **more,
    }
    inputs = tuple(given[port.name] for port in program.inputs)
    return run_onnx(exports.get(program).path, program, inputs)[0][:, 0]


def test_edm_gives_the_vectors(exports: OnnxCache) -> None:
    name = "edm-song-vp-tiny-cond"
    program = diffusion(DiffusionStep(network(name), None))["plain"]
    assert relative_error(evaluate(exports, program, name), load_arrays(name)["denoised"]) < ONE_EVALUATION


def test_edm2_gives_the_vectors(exports: OnnxCache, edm2: dict[str, Program]) -> None:
    denoised = evaluate(exports, edm2["plain"], "edm2-tiny")
    assert relative_error(denoised, load_arrays("edm2-tiny")["denoised"]) < ONE_EVALUATION


@pytest.mark.parametrize("name", ["scale", "cached-scale", "tokens", "pixels"])
def test_var_is_exported_as_it_is(exports: OnnxCache, transformer: dict[str, Program], name: str) -> None:
    program = transformer[name]
    for profile in program.profiles:
        sizes = {dimension: span.most for dimension, span in profile.items()}
        found = errors(exports.get(program).path, program, sizes)
        assert max(found.values()) < FLOAT32, found


def test_the_pixel_decoder_gives_the_vectors(exports: OnnxCache, transformer: dict[str, Program]) -> None:
    program, reference = transformer["pixels"], load("var-tiny")
    tokenizer = program.module.vqvae
    features = tokenizer.quantize.accumulate(reference["tokens"])[-1]
    (images,) = run_onnx(exports.get(program).path, program, (features,))
    assert relative_error(images, reference["decode_image"]) < ONE_EVALUATION


def test_a_network_that_guides_itself(exports: OnnxCache, small: Program) -> None:
    """The exporter sees stand-ins for shared modules: the guide must still be the one without a label."""
    assert check(exports.get(small).path, small, FLOAT32) < FLOAT32


@pytest.mark.parametrize("swapped", ["sigma", "class_ids", "scale"])
def test_swapped_inputs_are_noticed(exports: OnnxCache, small: Program, swapped: str) -> None:
    inputs = small.example({"batch": MAX_ROWS})
    wrong = tuple(
        tensor.roll(1, 0) if port.name == swapped else tensor
        for port, tensor in zip(small.inputs, inputs, strict=True)
    )
    found = errors(exports.get(small).path, small, {"batch": MAX_ROWS}, wrong)
    assert found["next_state"] > 100 * FLOAT32


@pytest.mark.parametrize("shift", [-1, 1])
def test_a_wrong_mask_is_noticed(exports: OnnxCache, transformer: dict[str, Program], shift: int) -> None:
    """The place that new tokens go to also says what is hidden from them."""
    program = transformer["cached-scale"]
    sizes = {"batch": 2, "tokens": 4}
    inputs = list(program.example(sizes))
    inputs[3] = torch.full((2,), 5)
    moved = [*inputs]
    moved[3] = inputs[3] + shift
    with torch.inference_mode():
        expected = program.module(*inputs)[0]
    path = exports.get(program).path
    assert relative_error(run_onnx(path, program, tuple(inputs))[0], expected) < FLOAT32
    assert relative_error(run_onnx(path, program, tuple(moved))[0], expected) > 100 * FLOAT32


def test_the_caches_are_those_of_the_plain_step(transformer: dict[str, Program]) -> None:
    """Two scales through caches that stay in place give what two scales with past and new ones give."""
    plain, cached = transformer["scale"].module, transformer["cached-scale"].module
    inputs = transformer["scale"].example({"batch": 2, "tokens": 1, "past_tokens": 0})
    later = transformer["scale"].example({"batch": 2, "tokens": 4, "past_tokens": 1}, seed=1)
    parts = transformer["cached-scale"].example({"batch": 2, "tokens": 1})[4:]
    with torch.inference_mode():
        _, new = plain(*inputs)
        expected, _ = plain(*later[:3], new)
        _, *parts = cached(*inputs[:3], torch.zeros(2, dtype=torch.int64), *parts)
        logits, *_ = cached(*later[:3], torch.ones(2, dtype=torch.int64), *parts)
    assert relative_error(logits, expected) < FLOAT32


def test_the_check_refuses_another_program(exports: OnnxCache, transformer: dict[str, Program]) -> None:
    program = transformer["tokens"]
    other = replace(program, module=_Unguided())
    with pytest.raises(EngineError, match="export of tokens does not compute what the network does: ids"):
        check(exports.get(program).path, other, FLOAT32)


def test_the_digest_is_of_content(small: Program) -> None:
    own = program_digest(small)
    again = prepared(SMALL_EDM, torch.float32)
    assert program_digest(diffusion(DiffusionStep(again, again))["guided"]) == own
    wider = replace(small, profiles=({"batch": Range(1, 1, 64)},))
    assert program_digest(wider) == own
    again.sigma_data = 0.25
    assert program_digest(diffusion(DiffusionStep(again, again))["guided"]) != own
    again.sigma_data = 0.5
    next(again.parameters()).data[0] += 1e-3
    assert program_digest(diffusion(DiffusionStep(again, again))["guided"]) != own


def test_an_export_is_made_once(exports: OnnxCache, transformer: dict[str, Program]) -> None:
    first = exports.get(transformer["tokens"])
    written = first.path.stat().st_mtime_ns
    assert exports.get(transformer["tokens"]) == first
    assert first.path.stat().st_mtime_ns == written


@pytest.mark.parametrize("package", ["onnx", "onnxscript"])
def test_without_an_exporter_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, small: Program, package: str
) -> None:
    known = importlib.util.find_spec
    monkeypatch.setattr(digest, "find_spec", lambda name: None if name == package else known(name))
    with pytest.raises(EngineError, match=rf"needs {package}: pip install 'ddo-serve\[tensorrt-rtx\]'"):
        program_digest(small)


class _Unguided(torch.nn.Module):
    def forward(self, conditional: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
        return conditional.argmax(dim=-1)
