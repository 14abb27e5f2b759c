"""From an ONNX file to an engine."""

from __future__ import annotations

import resource
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines.errors import EngineError
from engines.programs.program import Port, Profile, Program
from engines.tensorrt.log import check_log, complaints, logger_of
from engines.tensorrt.progress import Steps

SILENT = Steps()
"""Reports nothing."""


@dataclass(frozen=True)
class Target:
    """What an engine is built for.

    Attributes:
        capabilities: GPUs by compute capability, e.g. `sm89`; empty: all that the package builds for without
            a GPU, or with `tensorrt` the GPU at hand.
        refittable: whether the engine is to take new weights; only on a host with a GPU.
    """

    capabilities: tuple[str, ...] = ()
    refittable: bool = False

    @classmethod
    def of(cls, api: Any, capabilities: Sequence[str], *, refittable: bool = False) -> Target:
        """Check the names of capabilities against what the package builds for.

        Raises:
            EngineError: it does not build for one of them.
        """
        known = ahead_of_time_capabilities(api)
        unknown = sorted(set(capabilities) - set(known))
        if unknown:
            raise EngineError(
                f"{api.__name__} does not build for {', '.join(unknown)}; it builds for "
                f"{', '.join(known) or 'the GPU at hand alone: leave --capability out'}"
            )
        return cls(tuple(sorted(set(capabilities))) or known, refittable)


@dataclass(frozen=True)
class Build:
    """A finished engine.

    Attributes:
        plan: the file's content.
        layers: layers of each kind in the network as parsed.
        seconds: that it took.
        peak_bytes: most memory that this process had until then.
    """

    plan: Any
    layers: dict[str, int]
    seconds: float
    peak_bytes: int


def ahead_of_time_capabilities(api: Any) -> tuple[str, ...]:
    """Return the GPUs that the package builds for without one; none where it needs the GPU itself."""
    if not hasattr(api.IBuilderConfig, "set_compute_capability"):
        return ()
    unusable = {"NONE", "CURRENT", "SM75"}  # the last fails when it is built without a GPU
    return tuple(name.lower() for name in api.ComputeCapability.__members__ if name not in unusable)


class Builder:
    """Builds strongly typed engines: every tensor keeps the dtype that the program gives it.

    Args:
        api: TensorRT; see `engines.tensorrt.api`.
        steps: told how far a build is.
    """

    def __init__(self, api: Any, steps: Steps = SILENT) -> None:
        self._api = api
        self._steps = steps
        self._log = logger_of(api)

    def build(self, program: Program, onnx: Path, target: Target) -> Build:
        """Build the engine of an exported program.

        Raises:
            EngineError: TensorRT cannot build it, or warns of something that is not known to be harmless.
        """
        start = time.monotonic()
        self._log.messages.clear()
        builder = self._api.Builder(self._log)
        network = self._parse(builder, program, onnx)
        kinds = [layer.type.name for layer in _layers(network)]
        config = self._configure(builder, program, target)
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            said = "; ".join(complaints(self._log.messages)) or "it does not say why"
            raise EngineError(f"TensorRT cannot build {program.name}: {said}")
        check_log(self._log.messages, program.name)
        return Build(
            plan=plan,
            layers=dict(sorted(Counter(kinds).items())),
            seconds=time.monotonic() - start,
            peak_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        )

    def _parse(self, builder: Any, program: Program, onnx: Path) -> Any:
        typed = self._api.NetworkDefinitionCreationFlag.STRONGLY_TYPED
        network = builder.create_network(1 << int(typed))
        parser = self._api.OnnxParser(network, self._log)
        if not parser.parse_from_file(str(onnx)):
            reasons = [parser.get_error(i).desc() for i in range(parser.num_errors)]
            raise EngineError(f"TensorRT cannot read {program.name}: {'; '.join(reasons)}")
        check_log(self._log.messages, program.name)
        found = [network.get_input(i).name for i in range(network.num_inputs)]
        expected = [port.name for port in program.inputs]
        if found != expected:
            raise EngineError(f"{program.name} has the inputs {expected}, its ONNX file has {found}")
        for layer in _layers(network):
            if layer.type.name == "ATTENTION_INPUT":
                layer.__class__ = self._api.IAttentionInputLayer  # the binding's only way down from ILayer
                # Fused where TensorRT has a kernel for the shapes; without this it refuses all others.
                layer.attention.decomposable = True
        return network

    def _configure(self, builder: Any, program: Program, target: Target) -> Any:
        config = builder.create_builder_config()
        config.progress_monitor = self._monitor()
        if target.refittable:
            config.set_flag(self._api.BuilderFlag.REFIT)
        if target.capabilities:
            config.num_compute_capabilities = len(target.capabilities)
            for index, name in enumerate(target.capabilities):
                config.set_compute_capability(getattr(self._api.ComputeCapability, name.upper()), index)
        for ranges in program.profiles:
            profile = builder.create_optimization_profile()
            for port in program.inputs:
                profile.set_shape(port.name, *_extremes(port, ranges))
            if config.add_optimization_profile(profile) < 0:
                raise EngineError(f"TensorRT does not take the profile {dict(ranges)} of {program.name}")
        return config

    def _monitor(self) -> Any:
        steps = self._steps

        class Monitor(self._api.IProgressMonitor):  # type: ignore[misc, name-defined]
            def phase_start(self, name: str, parent: str | None, total: int) -> None:
                steps.begin(name, parent, total)

            def step_complete(self, name: str, step: int) -> bool:
                steps.advance(name, step)
                return True

            def phase_finish(self, name: str) -> None:
                steps.end(name)

        return Monitor()


def _extremes(port: Port, ranges: Profile) -> list[tuple[int, ...]]:
    """Return the port's shapes at the least, usual and most sizes."""
    return [
        tuple(getattr(ranges[size], extreme) if isinstance(size, str) else size for size in port.shape)
        for extreme in ("least", "usual", "most")
    ]


def _layers(network: Any) -> list[Any]:
    return [network.get_layer(i) for i in range(network.num_layers)]
