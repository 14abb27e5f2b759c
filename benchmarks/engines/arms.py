"""The ways to run a network that need no foreign code: our engine, and general runtimes."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn
from torch.nn.utils import convert_conv2d_weight_memory_format

from benchmarks.engines.answering import Prepare, answer
from benchmarks.engines.inputs import DenoiserInputs
from engines.base import ImageRequest
from engines.loading import load, load_sampler
from engines.settings import EngineSettings
from models.version import open_version

Settings = Mapping[str, Any]
INPUT_NAMES = ("x", "sigma", "labels")


def engine_settings(settings: Settings) -> EngineSettings:
    """Return the defaults but for what this comparison sets."""
    return EngineSettings(
        backend=settings["backend"],
        threads=settings["threads"],
        max_rows=settings["max_rows"],
        cache=Path(settings["cache"]),
    )


def load_denoising_engine(settings: Settings) -> Prepare:
    """Return one call of rows with a solver of one evaluation: it ends with the denoised estimate."""
    engine = load_sampler(open_version(Path(settings["version"])), engine_settings(settings))
    classes = settings["init"].get("label_dim", 0)

    def prepare(case: Mapping[str, Any]) -> Callable[[], Any]:
        rows = []
        for seed in range(case["batch"]):
            class_id = seed % classes if classes else None
            request = ImageRequest(class_id=class_id, seed=seed, solver="euler", steps=1)
            rows.append(engine.open(engine.resolve(request)))

        def run() -> Any:
            engine.step(rows)
            for row in rows:
                engine.close(row)
            return np.stack([engine.sample(row) for row in rows])

        return run

    return prepare


def load_image_engine(settings: Settings) -> Prepare:
    """Return the making of whole images."""
    engine: Any = load(open_version(Path(settings["version"])), engine_settings(settings))
    classes = settings["init"]["num_classes"]

    def prepare(case: Mapping[str, Any]) -> Callable[[], Any]:
        requests = [
            engine.resolve(ImageRequest(class_id=seed % classes, seed=seed, cfg=case["cfg"]))
            for seed in range(case["batch"])
        ]

        def run() -> Any:
            rows = [engine.open(request) for request in requests]
            while rows[0].calls_left:
                engine.step(rows)
            images = np.stack([engine.image(row) for row in rows])
            for row in rows:
                engine.close(row)
            return images

        return run

    return prepare


def load_torch(settings: Settings) -> Prepare:
    """Return an evaluation in torch, `precision` float32 or bfloat16 channels-last, `compiled` or eager."""
    network = _network(settings)
    if settings["precision"] == "bfloat16":
        cast(Any, network).prepare_inference(torch.bfloat16)
        convert_conv2d_weight_memory_format(network, torch.channels_last)
    call = torch.compile(network, dynamic=False) if settings.get("compiled") else network
    return _denoise(settings, lambda inputs: lambda: call(*inputs))


def load_onnx(settings: Settings) -> Prepare:
    """Return an evaluation in ONNX Runtime, float32."""
    import onnxruntime  # type: ignore[import-untyped]  # noqa: PLC0415

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = settings["threads"]
    network = _network(settings)

    def prepare(inputs: DenoiserInputs) -> Callable[[], Any]:
        given = _given(inputs)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "denoiser.onnx"
            arguments = tuple(given.values())
            torch.onnx.export(network, arguments, path, input_names=list(given), verbose=False, dynamo=True)
            session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        arrays = {name: value.numpy() for name, value in given.items()}
        return lambda: session.run(None, arrays)[0]

    return _denoise(settings, prepare)


def load_openvino(settings: Settings) -> Prepare:
    """Return an evaluation in OpenVINO, `precision` f32 or bf16, for one batch size or, if `dynamic`, any."""
    import openvino  # type: ignore[import-untyped]  # noqa: PLC0415

    network = _network(settings)
    core = openvino.Core()
    options = {
        "INFERENCE_PRECISION_HINT": settings["precision"],
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": settings["threads"],
    }

    def compile_for(inputs: DenoiserInputs) -> Any:
        arguments = tuple(_given(inputs).values())
        batch = torch.export.Dim("batch", min=1, max=64)
        shapes = tuple({0: batch} for _ in arguments) if settings["dynamic"] else None
        program = torch.export.export(network, arguments, dynamic_shapes=shapes)
        return core.compile_model(openvino.convert_model(program), "CPU", options)

    whole = compile_for(_draw(settings, 2)) if settings["dynamic"] else None

    def prepare(inputs: DenoiserInputs) -> Callable[[], Any]:
        request = (compile_for(inputs) if whole is None else whole).create_infer_request()
        arrays = [value.numpy() for value in _given(inputs).values()]
        return lambda: request.infer(arrays, share_inputs=True)[0]

    return _denoise(settings, prepare)


def load_torch_product(settings: Settings) -> Prepare:
    """Return the product of two square bfloat16 matrices in torch."""

    @lru_cache
    def prepare(size: int) -> Callable[[], Any]:
        left, right = (torch.randn(size, size).bfloat16() for _ in range(2))
        return lambda: torch.mm(left, right.T).float()[:1]

    return lambda case: prepare(case["size"])


def load_openvino_product(settings: Settings) -> Prepare:
    """Return the product of two square bfloat16 matrices in OpenVINO, one of them constant."""
    import openvino  # noqa: PLC0415
    from openvino import opset13  # noqa: PLC0415

    options = {"INFERENCE_PRECISION_HINT": "bf16", "INFERENCE_NUM_THREADS": settings["threads"]}

    @lru_cache
    def prepare(size: int) -> Callable[[], Any]:
        left, right = (np.random.default_rng(0).standard_normal((size, size), np.float32) for _ in range(2))
        given = opset13.parameter([size, size], np.float32)
        model = openvino.Model([opset13.matmul(given, opset13.constant(right), False, True)], [given])
        request = openvino.Core().compile_model(model, "CPU", options).create_infer_request()
        return lambda: request.infer([left], share_inputs=True)[0][:1]

    return lambda case: prepare(case["size"])


def _network(settings: Settings) -> nn.Module:
    return open_version(Path(settings["version"])).network().requires_grad_(False)


def _draw(settings: Settings, batch: int) -> DenoiserInputs:
    init = settings["init"]
    return DenoiserInputs.draw(batch, init["img_channels"], init["img_resolution"], init.get("label_dim", 0))


def _given(inputs: DenoiserInputs) -> dict[str, torch.Tensor]:
    return {name: value for name, value in zip(INPUT_NAMES, inputs, strict=True) if value is not None}


def _denoise(settings: Settings, prepare: Callable[[DenoiserInputs], Callable[[], Any]]) -> Prepare:
    prepared = lru_cache(maxsize=None)(lambda batch: prepare(_draw(settings, batch)))
    return lambda case: prepared(case["batch"])


ARMS: Mapping[str, Callable[[Settings], Prepare]] = {
    "denoising engine": load_denoising_engine,
    "image engine": load_image_engine,
    "torch": load_torch,
    "onnx": load_onnx,
    "openvino": load_openvino,
    "torch product": load_torch_product,
    "openvino product": load_openvino_product,
}


def main() -> None:
    """Load the arm that the settings name and answer its cases."""
    settings = json.loads(sys.argv[1])
    torch.set_num_threads(settings["threads"])
    # no_grad, not inference_mode: exporting needs tensors that a graph may hold
    with torch.no_grad():
        answer(lambda: ARMS[settings["arm"]](settings))


if __name__ == "__main__":
    main()
