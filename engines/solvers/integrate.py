"""A table run over one batch with any denoiser: what engines do row by row, in its plainest form."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from engines.solvers.table import SolverTable

if TYPE_CHECKING:
    from torch import Tensor


def integrate(
    table: SolverTable,
    denoiser: Callable[[Tensor, float], Tensor],
    latents: Tensor,
    noise: Callable[[], Tensor] | None = None,
) -> Tensor:
    """Return the sample that `table` makes of `latents`.

    Args:
        table: the solver written out.
        denoiser: maps (x, sigma), x like `latents`, to the denoised estimate, guided or not.
        latents: standard normal, any shape; their dtype is that of the whole computation.
        noise: draws fresh normal noise like `latents`; only stochastic solvers ask for it.

    Raises:
        ValueError: the solver is stochastic and there is no `noise`.
    """
    import torch  # noqa: PLC0415  Whoever only asks for the solvers' names needs no torch.

    def fresh(deviation: float) -> Tensor | float:
        if not deviation:
            return 0.0
        if noise is None:
            raise ValueError("this solver is stochastic: it needs a source of noise")
        return deviation * noise()

    state = torch.zeros(table.slots, *latents.shape, dtype=latents.dtype, device=latents.device)
    state[0] = latents * table.start + fresh(table.start_noise)
    for call in table.calls:
        denoised = denoiser(state[0], call.sigma).to(state)
        update = torch.from_numpy(call.update).to(state)
        state = torch.tensordot(update, torch.cat([state, denoised[None]]), dims=1)
        state[0] += fresh(call.noise)
    return state[0]
