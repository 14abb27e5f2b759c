"""Convolutions by Winograd's algorithm against PyTorch's own in float64."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
import winograd_processes
from structlog.testing import capture_logs
from tiny_runs import ALONE
from torch import Tensor, nn
from torch.nn import functional as F
from winograd_processes import SHARDINGS, gradient

from trainer.kernels.winograd import (
    WinogradConvolutions,
    fast_convolutions,
    load_kernels,
    pays,
)

TOLERANCE = 4e-6  # relative, of sums of up to some thousand products
CPU = torch.device("cpu")
needs_kernels = pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() != "AVX512" or not load_kernels(),
    reason="needs AVX-512, a C++ compiler and ninja",
)


@needs_kernels
@pytest.mark.parametrize(
    ("batch", "ins", "outs", "height", "width"),
    [
        (32, 64, 64, 4, 4),
        (8, 96, 64, 8, 8),
        (3, 128, 96, 16, 16),
        (1, 64, 64, 64, 64),  # strips longer than a block
        (2, 5, 7, 9, 3),
        (1, 33, 17, 5, 30),
        (2, 16, 65, 1, 1),
    ],
)
def test_values_and_gradients(batch: int, ins: int, outs: int, height: int, width: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x, weight, bias, gradient = (
        torch.randn(shape, generator=generator)
        for shape in ((batch, ins, height, width), (outs, ins, 3, 3), (outs,), (batch, outs, height, width))
    )
    ours = with_gradients(torch.ops.winograd.convolve, [x, weight, bias], gradient)
    exact = with_gradients(
        lambda *operands: F.conv2d(*operands, padding=1), [x, weight, bias], gradient.double()
    )
    for value, reference in zip(ours, exact, strict=True):
        assert (value - reference).norm() <= TOLERANCE * reference.norm()


def with_gradients(function, operands: list[Tensor], gradient: Tensor) -> list[Tensor]:
    operands = [operand.detach().to(gradient.dtype).requires_grad_() for operand in operands]
    output = function(*operands)
    output.backward(gradient)
    return [output.detach(), *(operand.grad for operand in operands)]


@needs_kernels
def test_operators_meet_the_dispatchers_rules() -> None:
    x, weight = torch.randn(2, 3, 8, 8, requires_grad=True), torch.randn(5, 3, 3, 3, requires_grad=True)
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    for bias in (None, torch.randn(5, requires_grad=True)):
        torch.library.opcheck(torch.ops.winograd.convolve.default, (x, weight, bias), test_utils=tests)
    gradient = torch.randn(2, 5, 8, 8)
    detached = (x.detach(), weight.detach())
    torch.library.opcheck(
        torch.ops.winograd.input_gradient.default, (gradient, detached[1]), test_utils=tests
    )
    torch.library.opcheck(
        torch.ops.winograd.weight_gradient.default, (detached[0], gradient), test_utils=tests
    )


@needs_kernels
def test_any_strides_are_taken() -> None:
    x, weight = torch.randn(2, 64, 8, 8), torch.randn(64, 64, 3, 3)
    contiguous = torch.ops.winograd.convolve(x, weight, None)
    last = [tensor.to(memory_format=torch.channels_last) for tensor in (x, weight)]
    assert torch.equal(torch.ops.winograd.convolve(*last, None), contiguous)
    assert torch.equal(
        torch.ops.winograd.weight_gradient(last[0], last[0]), torch.ops.winograd.weight_gradient(x, x)
    )


@needs_kernels
def test_bits_depend_neither_on_threads_nor_on_the_batch() -> None:
    x, weight = torch.randn(12, 64, 8, 8), torch.randn(96, 64, 3, 3)
    gradient = torch.randn(12, 96, 8, 8)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            results.append(
                (
                    torch.ops.winograd.convolve(x, weight, None),
                    torch.ops.winograd.weight_gradient(x, gradient),
                )
            )
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(one, two) for one, two in zip(*results, strict=True))
    assert torch.equal(torch.ops.winograd.convolve(x[5:6], weight, None), results[0][0][5:6])


X, W = torch.empty(32, 64, 8, 8), torch.empty(64, 64, 3, 3)


@pytest.mark.parametrize(
    ("operands", "geometry", "expected"),
    [
        ((X, W), {"padding": 1}, True),
        ((X, W, None, 1, 1), {}, True),
        ((X, W), {"padding": (1, 1), "stride": [1, 1]}, True),
        ((X, W), {}, False),
        ((X, W), {"padding": "same"}, False),
        ((X, W), {"padding": 1, "stride": 2}, False),
        ((X, W), {"padding": 1, "dilation": 2}, False),
        ((X, W[:, :32]), {"padding": 1, "groups": 2}, False),
        ((X[0], W), {"padding": 1}, False),
        ((X.double(), W.double()), {"padding": 1}, False),
        ((X.to("meta"), W.to("meta")), {"padding": 1}, False),
        ((X[:4], W), {"padding": 1}, False),
        ((X[..., :7], W), {"padding": 1}, False),
        ((X[:, :32], W[:, :32]), {"padding": 1}, False),
        ((X, W[..., :1, :1]), {"padding": 0}, False),
    ],
)
def test_where_it_pays(operands: tuple[Tensor, ...], geometry: dict[str, object], expected: bool) -> None:
    assert pays(*operands, **geometry) is expected


@needs_kernels
def test_networks_need_no_change() -> None:
    x = torch.randn(64, 64, 4, 4)
    layer = nn.Conv2d(64, 64, 3, padding=1)
    direct = layer(x)
    with WinogradConvolutions():
        fast = layer(x)
        strided = F.conv2d(x, layer.weight, stride=2, padding=1)
    assert torch.equal(layer(x), direct)
    assert torch.equal(fast, torch.ops.winograd.convolve(x, layer.weight, layer.bias))
    assert not torch.equal(fast, direct)
    assert torch.equal(strided, F.conv2d(x, layer.weight, stride=2, padding=1))


@needs_kernels
@pytest.mark.parametrize(
    ("network", "device"),
    [(nn.Conv2d(64, 64, 1), CPU), (nn.Conv2d(32, 64, 3), CPU), (nn.Conv2d(64, 64, 3), torch.device("cuda"))],
)
def test_other_networks_are_left_alone(network: nn.Module, device: torch.device) -> None:
    assert isinstance(fast_convolutions(network, device), nullcontext)
    assert not isinstance(fast_convolutions(nn.Conv2d(64, 64, 3), CPU), nullcontext)


@needs_kernels
@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_loop_trains_with_it(
    checkpointing: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast = gradient(tmp_path / "fast", ALONE, checkpointing=checkpointing)
    monkeypatch.setattr("trainer.training.loop.fast_convolutions", lambda *_: nullcontext())
    direct = gradient(tmp_path / "direct", ALONE, checkpointing=checkpointing)
    assert not torch.equal(fast, direct)
    assert (fast - direct).norm() <= 1e-5 * direct.norm()


@pytest.mark.slow
@needs_kernels
def test_two_processes_have_the_gradient_of_one(tmp_path: Path) -> None:
    alone = gradient(tmp_path / "alone", ALONE)
    script = (winograd_processes.__file__, str(tmp_path))
    subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *script],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
        check=True,
        timeout=300,
    )
    for sharding in SHARDINGS:
        for rank in range(2):
            seen = torch.load(tmp_path / f"{sharding}-{rank}.pt")
            assert (seen - alone).norm() <= 1e-6 * alone.norm()


@needs_kernels
@pytest.mark.parametrize("missing", ["compiler", "folder"])
def test_without_the_means_to_build_it_convolutions_stay_direct(
    missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    if missing == "compiler":
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.setenv("CXX", "no-such-compiler")
    else:
        folder.touch()
    with capture_logs() as log:
        assert not load_kernels.__wrapped__()  # what a new process does
    assert [line["event"] for line in log] == ["convolutions are not accelerated"]
    assert log[0]["reason"]
    assert not list(folder.glob("ddo-serve/*"))
    monkeypatch.setattr("trainer.kernels.winograd.load_kernels", lambda: False)
    assert isinstance(fast_convolutions(nn.Conv2d(64, 64, 3), CPU), nullcontext)
