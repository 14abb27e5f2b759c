"""The fused diffusion step as programs, one for each lane of the diffusion engine."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from engines.programs.diffusion_step import DiffusionStep
from engines.programs.program import Port, Program, Range, integers, log_normal

PLAIN, GUIDED = "plain", "guided"


class PortedStep(nn.Module):
    """A `DiffusionStep` that takes only what its networks read, in the order of the ports.

    Args:
        step: the networks.
        names: the ports' names: `state`, `sigma`, `update`, and where they are read `class_ids` and `scale`.
    """

    def __init__(self, step: DiffusionStep, names: tuple[str, ...]) -> None:
        super().__init__()
        self.step = step
        self.names = names

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the state after the call, (B, K, C, H, W) float32; `inputs` as the ports."""
        given = dict(zip(self.names, inputs, strict=True))
        # A network without labels does not read the classes: any tensor will do.
        classes = given.get("class_ids", given["sigma"])
        state: Tensor = self.step(
            given["state"], given["sigma"], classes, given["update"], given.get("scale")
        )
        return state


def diffusion_programs(
    step: DiffusionStep, *, shape: tuple[int, int, int], slots: int, max_rows: int
) -> list[Program]:
    """Return the program `plain`, and `guided` where the step has a guide.

    Args:
        step: the networks, prepared for the precision to compute in; inputs and outputs stay float32.
        shape: (C, H, W) of a sample.
        slots: K, the slots of every row's state.
        max_rows: most rows of a call.
    """
    lanes = [PLAIN] if step.guide is None else [PLAIN, GUIDED]
    return [_program(step, lane, shape=shape, slots=slots, max_rows=max_rows) for lane in lanes]


def _program(
    step: DiffusionStep, lane: str, *, shape: tuple[int, int, int], slots: int, max_rows: int
) -> Program:
    inputs = [
        Port("state", ("batch", slots, *shape)),
        Port("sigma", ("batch",), draw=log_normal),
        Port("update", ("batch", slots, slots + 1)),
    ]
    guided = lane == GUIDED
    classes = max(int(network.label_dim) for network in _evaluated(step, guided))  # type: ignore[arg-type]
    if classes:
        inputs.append(Port("class_ids", ("batch",), torch.int64, integers(classes)))
    if guided:
        inputs.append(Port("scale", ("batch",), draw=log_normal))
    evaluated = step if guided else DiffusionStep(step.network, None)
    return Program(
        name=lane,
        module=PortedStep(evaluated, tuple(port.name for port in inputs)).eval(),
        inputs=tuple(inputs),
        outputs=(Port("next_state", ("batch", slots, *shape)),),
        profiles=({"batch": Range(1, max_rows, max_rows)},),
    )


def _evaluated(step: DiffusionStep, guided: bool) -> list[nn.Module]:
    return [step.network] if step.guide is None or not guided else [step.network, step.guide]
