"""What the steps since the last report measured."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from trainer.errors import NonFiniteLossError
from trainer.training.processes import Processes

GRADIENT_NORM = "gradient_norm"
_MUST_BE_FINITE = ("loss", GRADIENT_NORM)


class Window:
    """Collects figures without waiting for the device that computes them.

    Args:
        processes: each measures its own part of a step.
        batch: rows of a step.
    """

    def __init__(self, processes: Processes, batch: int) -> None:
        self._processes = processes
        self._batch = batch
        self._starts: list[int] = []
        self._values: list[Tensor] = []
        self._names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self._starts)

    def add(self, start: int, values: Mapping[str, Tensor]) -> None:
        """Take the figures, scalars, of the step whose first row is `start`."""
        self._names = tuple(values)
        self._starts.append(start)
        self._values.append(torch.stack(list(values.values())))

    def means(self) -> dict[str, float]:
        """Return each figure's mean over steps and processes; every process must call it.

        Raises:
            NonFiniteLossError: a loss or a gradient is NaN or infinite; names the first step.
        """
        table = self._processes.mean(torch.stack(self._values)).cpu()
        wrong = ~table[:, [self._names.index(name) for name in _MUST_BE_FINITE]].isfinite()
        if wrong.any():
            step, column = wrong.nonzero()[0].tolist()
            name, start = _MUST_BE_FINITE[column], self._starts[step]
            value = table[step, self._names.index(name)].item()
            raise NonFiniteLossError(
                f"the {name.replace('_', ' ')} is {value} in step {start // self._batch}, at image {start}; "
                "the saved state is from before. Lower the learning rate, clip the gradient, or use "
                "precision = 'float32'."
            )
        return dict(zip(self._names, table.mean(dim=0).tolist(), strict=True))

    def clear(self) -> None:
        """Begin anew."""
        self._starts.clear()
        self._values.clear()
