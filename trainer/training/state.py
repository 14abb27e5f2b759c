"""What a run must remember to go on as if it had never stopped: as whole tensors, however many processes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

import torch
from torch import Tensor, nn

from models.checkpoints.loading import check_schema
from models.errors import SchemaMismatchError
from trainer.errors import TrainerError
from trainer.training.average import WeightAverage
from trainer.training.spread import fill, gather

Tensors = dict[str, Tensor]


class State(TypedDict):
    """A run between two steps. All else that is random follows from `seen`.

    Attributes:
        seen: images so far.
        network: its state dict.
        optimizer: Adam's moments and step of each parameter that has had a gradient.
        averages: the averaged parameters, by the average's name.
    """

    seen: int
    network: Tensors
    optimizer: dict[str, Tensors]
    averages: dict[str, Tensors]


def gather_state(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    averages: Mapping[str, WeightAverage],
    seen: int,
    *,
    keep: bool,
) -> State:
    """Return the state; every process must call it, and those that do not `keep` it get no tensors."""
    return {
        "seen": seen,
        "network": gather(network.state_dict(), keep=keep),
        "optimizer": {
            name: gather(optimizer.state[parameter], keep=keep)
            for name, parameter in network.named_parameters()
            if parameter in optimizer.state
        },
        "averages": {name: gather(average.values, keep=keep) for name, average in averages.items()},
    }


def restore_state(
    state: State,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    averages: Mapping[str, WeightAverage],
) -> int:
    """Put `state` into place and return the images seen; every process must call it.

    Raises:
        TrainerError: it is the state of another network, or lacks one of the averages.
    """
    parameters = dict(network.named_parameters())
    try:
        check_schema(network, state["network"])
    except SchemaMismatchError as error:
        raise TrainerError(
            f"the saved state is of another network: {error}. Start in another folder."
        ) from error
    if unknown := state["optimizer"].keys() - parameters.keys():
        raise TrainerError(f"the saved state has moments of {sorted(unknown)}, which are no parameters")
    if missing := averages.keys() - state["averages"].keys():
        raise TrainerError(
            f"the saved state holds the averages {sorted(state['averages'])}, not {sorted(missing)}; "
            "they cannot be made up afterwards. Start in another folder, or keep the averages."
        )
    fill(network.state_dict(), state["network"])
    for name, average in averages.items():
        fill(average.values, state["averages"][name])
    for name, moments in state["optimizer"].items():
        optimizer.state[parameters[name]] = _moments(parameters[name], moments)
    return state["seen"]


def _moments(parameter: nn.Parameter, saved: Tensors) -> Tensors:
    moments = {key: torch.zeros_like(parameter) for key in saved if key != "step"}
    fill(moments, saved)
    return {"step": saved["step"], **moments}
