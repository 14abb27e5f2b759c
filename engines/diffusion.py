"""The engine for EDM and EDM2: every solver's calls over rows of different requests."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache, partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from engines import diffusion_request
from engines.backends.base import Backend
from engines.base import ImageRequest, Leg
from engines.buckets import Buckets, powers_of_two
from engines.diffusion_row import DECODE, DiffusionRow, lane_of
from engines.errors import EngineError
from engines.footprint import weights_nbytes
from engines.open_rows import OpenRows
from engines.pixels import Decoder, Pixels, to_pixels
from engines.programs.diffusion_step import DiffusionStep
from engines.solvers import SolverTable, plan
from models.spec import DiffusionDefaults

SLOTS = 3
"""Slots of every row's state: as many as the greediest solver needs, so that all solvers share calls.

After a call the last slot holds the call's denoised estimate: a solver of fewer slots leaves it free, and one
of as many keeps it there by itself."""

PROBED_SIGMAS = (1.0, 0.1, 20.0, 0.01)
"""Noise levels of the rows that the search for batch sizes tries."""

TABLES_KEPT = 256
"""Solver tables that an engine keeps, one for each (solver, steps) asked for lately."""


class DiffusionEngine:
    """An `Engine` for EDM and EDM2 (Karras et al. 2022 and 2024).

    A row's state is a few slots of image size; one call evaluates slot 0 and applies the solver's update, so
    rows with other solvers, steps, noise levels and guidance scales share it. Guided rows have calls of their
    own, since they cost two evaluations. A row's bits do not depend on the rows beside it: its noise is its
    own and calls run at batch sizes that were found to agree on every bit when the engine was made.

    Args:
        step: the networks.
        backend: what compiles and runs them.
        decoder: makes images of samples; None: rows end with their samples, and there are no images.
        shape: (C, H, W) of a sample.
        defaults: what a request means that does not say otherwise.
        num_classes: classes that may be asked for; 0 for an unconditional model.
        max_rows: images in one call.
        capacity: images open at once.

    Raises:
        EngineError: no batch size gives reproducible results.
    """

    def __init__(
        self,
        step: DiffusionStep,
        backend: Backend,
        decoder: Decoder | None,
        *,
        shape: tuple[int, int, int],
        defaults: DiffusionDefaults,
        num_classes: int,
        max_rows: int = 8,
        capacity: int = 64,
    ) -> None:
        self.max_rows = max_rows
        self.capacity = capacity
        self._shape = shape
        self._defaults = defaults
        self._num_classes = num_classes
        self._can_guide = step.guide is not None
        self._device = backend.device
        self._decoder = decoder
        self._step = step
        weights = weights_nbytes(step) + (0 if decoder is None else decoder.nbytes)
        self.nbytes = weights + capacity * SLOTS * math.prod(shape) * torch.float32.itemsize
        self._run = backend.compile(step)
        self._rows: OpenRows[DiffusionRow] = OpenRows(capacity, max_rows)
        # Of a function, not of a method, which would hold the engine in a circle after its last use.
        self._table = lru_cache(maxsize=TABLES_KEPT)(partial(_plan, defaults))
        lanes = ["plain", "guided"] if self._can_guide else ["plain"]
        self._buckets = {lane: self._find_buckets(backend, lane) for lane in lanes}
        self._decoder_buckets = None if decoder is None else self._find_decoder_buckets(decoder)

    @property
    def costs(self) -> dict[str, dict[int, float]]:
        """See `Engine`. Kinds are `plain` and, where the model has a guide, `guided`."""
        return {lane: buckets.seconds_by_size for lane, buckets in self._buckets.items()}

    def resolve(self, request: ImageRequest) -> ImageRequest:
        """Fill in the model's defaults and check every field.

        Raises:
            InvalidRequestError: a field that diffusion does not have, or a value out of its range.
        """
        return diffusion_request.resolve(
            request, self._defaults, num_classes=self._num_classes, guided=self._can_guide
        )

    def path(self, request: ImageRequest) -> tuple[Leg, ...]:
        """Return the solver's calls of the denoiser and, where images are decoded, one of the decoder.

        Raises:
            EngineError: the request was not resolved.
        """
        calls = Leg(lane_of(request), len(self._table_of(request).calls))
        return (calls,) if self._decoder is None else (calls, Leg(DECODE, 1))

    def open(self, request: ImageRequest) -> DiffusionRow:
        """Draw the noise of a resolved request and give it a place.

        Raises:
            EngineError: `capacity` rows are open.
        """
        self._rows.check_room()
        table = self._table_of(request)
        generator = torch.Generator().manual_seed(request.seed)
        state = torch.zeros(SLOTS, *self._shape)
        state[0] = torch.randn(self._shape, generator=generator) * table.start
        if table.start_noise:
            state[0] += torch.randn(self._shape, generator=generator) * table.start_noise
        return self._rows.add(
            DiffusionRow(
                request=request,
                table=table,
                state=state.to(self._device),
                generator=generator,
                decoded=self._decoder is not None,
            )
        )

    @torch.inference_mode()
    def step(self, rows: Sequence[DiffusionRow]) -> None:
        """Make the next call of rows that share a lane, or decode their images.

        Raises:
            EngineError: too many rows, rows of different lanes, finished or closed ones.
        """
        self._rows.check_call(rows)
        if rows[0].lane != DECODE:
            self._advance(rows)
        elif self._decoder is not None and self._decoder_buckets is not None:
            self._decode(self._decoder, self._decoder_buckets, rows)

    @torch.inference_mode()
    def preview(self, row: DiffusionRow) -> Pixels | None:
        """Return the denoised estimate of the row's last call, (H, W, 3), uint8 RGB.

        Latents are not decoded but mapped to colours: the picture then has the latents' size. None: no call
        was made yet, or there is no decoder.
        """
        if row.call == 0 or self._decoder is None:
            return None
        preview: Pixels = to_pixels(self._decoder.approximate(row.state[-1:]))[0]
        return preview

    def image(self, row: DiffusionRow) -> Pixels:
        """Return the finished image, (H, W, 3), uint8 RGB.

        Raises:
            EngineError: the row is not finished.
        """
        if row.pixels is None:
            raise EngineError(f"the image is not finished: {row.calls_left} calls are left")
        return row.pixels

    def sample(self, row: DiffusionRow) -> npt.NDArray[np.float32]:
        """Return what the solver ends with and an image is decoded from, (C, H, W) float32.

        Raises:
            EngineError: the solver has not finished.
        """
        if row.call < len(row.table.calls):
            raise EngineError(f"the sample is not finished: {len(row.table.calls) - row.call} calls are left")
        return np.asarray(row.state[0].cpu().numpy())

    def close(self, row: DiffusionRow) -> None:
        """Give the row's place back, finished or not.

        Raises:
            EngineError: the row is not open.
        """
        self._rows.remove(row)

    def _advance(self, rows: Sequence[DiffusionRow]) -> None:
        lane = rows[0].lane
        for count, indices in self._buckets[lane].calls(len(rows)):
            batch = [rows[i] for i in indices]
            calls = [row.table.calls[row.call] for row in batch]
            states = self._run(
                torch.stack([row.state for row in batch]),
                self._tensor([call.sigma for call in calls]),
                torch.tensor([row.request.class_id or 0 for row in batch], device=self._device),
                self._tensor([_padded(call.update) for call in calls]),
                self._tensor([row.request.cfg for row in batch]) if lane == "guided" else None,
            )
            for row, call, state in zip(batch[:count], calls, states, strict=False):
                row.state = state
                row.call += 1
                if call.noise:
                    fresh = torch.randn(self._shape, generator=row.generator) * call.noise
                    row.state[0] += fresh.to(self._device)

    @staticmethod
    def _decode(decoder: Decoder, buckets: Buckets, rows: Sequence[DiffusionRow]) -> None:
        for count, indices in buckets.calls(len(rows)):
            images = to_pixels(decoder.decode(torch.stack([rows[i].state[0] for i in indices])))
            for i, image in zip(indices[:count], images, strict=False):
                rows[i].pixels = image

    def _table_of(self, request: ImageRequest) -> SolverTable:
        if request.solver is None or request.steps is None:
            raise EngineError("the request was not resolved: it has no solver or steps")
        return self._table(request.solver, request.steps)

    def _tensor(self, values: list[float] | list[np.ndarray]) -> Tensor:
        return torch.tensor(np.array(values), dtype=torch.float32, device=self._device)

    def _find_buckets(self, backend: Backend, lane: str) -> Buckets:
        guided = lane == "guided"

        def run(size: int, number: int) -> Tensor:
            state = torch.randn(1, SLOTS, *self._shape, generator=torch.Generator().manual_seed(number))
            sigma = PROBED_SIGMAS[number % len(PROBED_SIGMAS)]
            class_id = number % max(self._num_classes, 1)
            return self._run(
                (state * sigma).expand(size, -1, -1, -1, -1).to(self._device),
                self._tensor([sigma] * size),
                torch.full((size,), class_id, device=self._device),
                self._tensor([np.eye(SLOTS, SLOTS + 1, k=1)] * size),
                self._tensor([1.5] * size) if guided else None,
            )

        return backend.find_buckets(self._step, lane, run, self.max_rows)

    @torch.inference_mode()
    def _find_decoder_buckets(self, decoder: Decoder) -> Buckets:
        sample = torch.randn(1, *self._shape, generator=torch.Generator().manual_seed(0)).to(self._device)
        return Buckets.find(
            lambda size: decoder.decode(sample.expand(size, -1, -1, -1)),
            powers_of_two(self.max_rows),
            decoder.call_cost,
        )


def _plan(defaults: DiffusionDefaults, solver: str, steps: int) -> SolverTable:
    return plan(solver, steps, defaults)


def _padded(update: np.ndarray) -> np.ndarray:
    """Widen a (K, K + 1) update to the engine's slots; the evaluation stays in the last column.

    A last slot that the solver leaves free takes the evaluation. No other slot ever reads it there.
    """
    slots = len(update)
    wide = np.zeros((SLOTS, SLOTS + 1))
    wide[-1, -1] = 1
    wide[:slots, :slots], wide[:slots, -1] = update[:, :-1], update[:, -1]
    return wide
