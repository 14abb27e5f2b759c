"""The one way in for weights: a file of any format becomes a checkpoint, which is checked and loaded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from models.checkpoints.archives import load_archive
from models.checkpoints.pickles import load_pickle
from models.checkpoints.var import is_var, var_init
from models.errors import CheckpointError, ModelNotFoundError, NonFiniteWeightsError, SchemaMismatchError

_NAMED = 3


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One network's weights as a file holds them.

    Attributes:
        source: the file.
        state: tensors by name, in the file's dtypes.
        init: constructor arguments for `models.build`; None where the file does not tell them.
    """

    source: Path
    state: Mapping[str, Tensor]
    init: dict[str, Any] | None


def load(path: Path) -> Checkpoint:
    """Read a checkpoint; nothing in it is ever run and no more is allocated than about twice its size.

    The content decides, not the name: official EDM and EDM2 pickles (`ema`), VAR's `.pth` (flat, or nested as
    its trainer saves it) and safetensors. VAR's constructor arguments follow from its tensors; those of VAR's
    tokenizer need the VAR's too, see `models.checkpoints.var.vqvae_init`.

    Raises:
        ModelNotFoundError: there is no such file.
        UnsafeCheckpointError: the file asks for anything but the data of weights.
        CheckpointError: it is damaged, truncated or of an unknown format.
    """
    if not path.is_file():
        raise ModelNotFoundError(f"there is no file {path}")
    with path.open("rb") as file:
        start = file.read(9)
    if start.startswith(b"PK\x03\x04"):
        state = load_archive(path)
        return Checkpoint(path, state, _init(state))
    if start.startswith(b"\x80"):
        init, state = load_pickle(path)
        return Checkpoint(path, state, init)
    if start[8:] == b"{":
        state = load_safetensors(path)
        return Checkpoint(path, state, _init(state))
    raise CheckpointError(
        f"{path.name} is no checkpoint: it starts like neither a pickle, a zip nor safetensors"
    )


def load_safetensors(path: Path) -> dict[str, Tensor]:
    """Map a safetensors file; the library first checks its header: lengths, offsets, overlaps, dtypes.

    Raises:
        CheckpointError: the header lies or the file is truncated.
    """
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path.name} is damaged or truncated: {error}") from error


def check_schema(network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Compare names, shapes and kinds of `state` with those of `network`, which may lie on the meta device.

    Raises:
        SchemaMismatchError: names missing and extra names, and both shapes where they differ.
    """
    expected = network.state_dict()
    faults = [
        *_listed("missing", expected.keys() - state.keys()),
        *_listed("not part of the network", state.keys() - expected.keys()),
    ]
    common = [name for name in expected if name in state]
    faults += _listed(
        "of another shape",
        [
            f"{name} {tuple(state[name].shape)} in the file, {tuple(expected[name].shape)} in the network"
            for name in common
            if state[name].shape != expected[name].shape
        ],
    )
    faults += _listed(
        "of another kind",
        [
            f"{name} {state[name].dtype} in the file, {expected[name].dtype} in the network"
            for name in common
            if state[name].is_floating_point() != expected[name].is_floating_point()
        ],
    )
    if faults:
        raise SchemaMismatchError(f"the checkpoint does not fit the network; tensors {'; '.join(faults)}")


def check_finite(network: nn.Module, state: Mapping[str, Tensor], *, allow_non_finite: bool = False) -> None:
    """Look for NaN everywhere and for infinities in parameters; a buffer may be a mask of infinities.

    Args:
        network: tells parameters from buffers; it may lie on the meta device.
        state: the tensors to look at.
        allow_non_finite: log a warning in place of the error.

    Raises:
        NonFiniteWeightsError: names the tensors.
    """
    parameters = {name for name, _ in network.named_parameters()}
    bad = [name for name, tensor in state.items() if not _is_sound(tensor, name in parameters)]
    if not bad:
        return
    (fault,) = _listed("with NaN or infinite values", bad)
    if not allow_non_finite:
        raise NonFiniteWeightsError(f"tensors {fault}")
    structlog.get_logger(__name__).warning("non-finite weights", tensors=fault)


def give_weights(network: nn.Module, state: Mapping[str, Tensor], *, allow_non_finite: bool = False) -> None:
    """Make `state` a network's weights in place of its own; only what has another dtype is copied.

    The network then shares memory with `state`, which may be a file's.

    Raises:
        SchemaMismatchError: names or shapes differ.
        NonFiniteWeightsError: NaN or infinite weights, unless `allow_non_finite`, which only logs a warning.
    """
    check_schema(network, state)
    check_finite(network, state, allow_non_finite=allow_non_finite)
    dtypes = {name: tensor.dtype for name, tensor in network.state_dict().items()}
    network.load_state_dict({name: state[name].to(dtype) for name, dtype in dtypes.items()}, assign=True)


def load_into(network: nn.Module, state: Mapping[str, Tensor], *, allow_non_finite: bool = False) -> None:
    """Copy `state` into `network`, converting to the network's dtypes (float16 weights become float32).

    Raises:
        SchemaMismatchError: names or shapes differ.
        NonFiniteWeightsError: NaN or infinite weights, unless `allow_non_finite`, which only logs a warning.
    """
    check_schema(network, state)
    check_finite(network, state, allow_non_finite=allow_non_finite)
    network.load_state_dict(dict(state))


def _init(state: Mapping[str, Tensor]) -> dict[str, Any] | None:
    return var_init(state) if is_var(state) else None


def _is_sound(tensor: Tensor, is_parameter: bool) -> bool:
    if not tensor.is_floating_point():
        return True
    # A sum is finite only if every term is, and takes a twentieth of the time.
    if torch.isfinite(tensor.sum(dtype=torch.float32)):
        return True
    sound = torch.isfinite(tensor) if is_parameter else ~torch.isnan(tensor)
    return bool(sound.all())


def _listed(what: str, names: Iterable[str]) -> list[str]:
    ordered = sorted(names)
    if not ordered:
        return []
    more = f" and {len(ordered) - _NAMED} more" if len(ordered) > _NAMED else ""
    return [f"{what} ({len(ordered)}): {', '.join(ordered[:_NAMED])}{more}"]
