"""The engine for VAR: images decoded scale by scale, rows of different requests side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.utils import convert_conv2d_weight_memory_format

from engines import var_request
from engines.backends.bucket_cache import BucketCache
from engines.base import ImageRequest, Leg
from engines.buckets import Buckets, powers_of_two
from engines.errors import EngineError
from engines.footprint import weights_nbytes
from engines.open_rows import OpenRows
from engines.pixels import Pixels, to_pixels
from engines.scale_decoder import ScaleDecoder
from engines.token_sampling import TokenSampler, guide
from engines.var_row import PIXELS, VarRow, lane_of
from models.networks.autoencoder import Upsample
from models.networks.doubling import fold_doubling
from models.networks.var import VAR
from models.networks.vqvae import VQVAE
from models.spec import VarDefaults

DECODE_PIXELS = 256 * 256
"""Pixels in one call of the pixel decoder: a larger batch is no faster on a CPU, and needs more memory."""

DECODE_CALL_COST = 0.1
"""What a call of the pixel decoder costs beside its rows, in rows."""


class VarEngine:
    """An `Engine` for VAR: next-scale prediction (Tian et al. 2024, arXiv 2404.02905, Section 3.2).

    A row has a call for each scale and one for the tokenizer's decoder. Keys and values are cached; what a
    class does to the layers is computed once a class. Guided and unguided rows share calls; unguided ones run
    the transformer once. A row's bits do not depend on the rows beside it: its noise is its own, and calls
    run at batch sizes that were found to agree on every bit when the engine was made.

    Guidance: with s = `cfg`, scale k of K has logits (1 + t) c - t u, t = (s - 1) k / (K - 1); `var_raw_cfg`
    stands for s - 1. The blocks of the transformer and the pixel decoder compute in `dtype`; embeddings,
    head, guidance, sampling and feature maps in float32. An image value x in [-1, 1] becomes the integer
    nearest to 255 (x + 1) / 2.

    Args:
        var: the transformer, float32; the engine takes it over, and casts and moves it.
        vqvae: its tokenizer, likewise.
        defaults: what a request means that does not say otherwise.
        num_classes: classes that may be asked for.
        device: where to compute.
        dtype: float32 or bfloat16.
        max_rows: images in one call.
        capacity: images open at once.
        greedy: take the likeliest token in place of drawing one, for comparisons; seeds then do nothing.
        transformer: what runs the layers, given `var`, `slots` and `max_branches`.
        bucket_cache: what keeps the batch sizes of the pixel decoder that were found; None: they are searched
            for.

    Raises:
        EngineError: the networks do not fit each other, or no batch size gives reproducible results.
    """

    def __init__(
        self,
        var: VAR,
        vqvae: VQVAE,
        *,
        defaults: VarDefaults,
        num_classes: int,
        device: torch.device,
        dtype: torch.dtype,
        max_rows: int = 8,
        capacity: int = 16,
        greedy: bool = False,
        transformer: Callable[..., ScaleDecoder] = ScaleDecoder,
        bucket_cache: BucketCache | None = None,
    ) -> None:
        if var.scales != vqvae.scales:
            raise EngineError(f"scales {var.scales.sides} and the tokenizer's {vqvae.scales.sides} differ")
        self.max_rows = max_rows
        self.capacity = capacity
        self._defaults = defaults
        self._num_classes = num_classes
        self._greedy = greedy
        self._rows: OpenRows[VarRow] = OpenRows(capacity, max_rows)
        self._var = var.to(device).eval()
        self._var.blocks.to(dtype)
        self._vqvae = vqvae.to(device).eval()
        if device.type == "cpu":
            fold_doubling(vqvae.decoder, Upsample)
        for part in (vqvae.post_quant_conv, vqvae.decoder):
            convert_conv2d_weight_memory_format(part.to(dtype), torch.channels_last)
        side = var.scales.sides[-1]
        self._no_features = torch.zeros(1, var.z_channels, side, side, device=device)
        weights = weights_nbytes(var, vqvae)  # before some are packed and are no parameters any more
        with torch.inference_mode():
            self._transformer = transformer(var, slots=2 * capacity, max_branches=2 * max_rows)
            self._decoder_buckets = self._find_decoder_buckets(bucket_cache)
        features = capacity * self._no_features.nbytes
        self.nbytes = weights + self._transformer.cache_nbytes + features

    @property
    def costs(self) -> dict[str, dict[int, float]]:
        """See `Engine`. Kinds are `scale0` and up, where a guided row counts as two, and `pixels`."""
        scales = {lane_of(number): costs for number, costs in enumerate(self._transformer.costs)}
        return {**scales, PIXELS: self._decoder_buckets.seconds_by_size}

    def resolve(self, request: ImageRequest) -> ImageRequest:
        """Fill in the model's defaults and check every field.

        Raises:
            InvalidRequestError: a field that VAR does not have, or a value out of its range.
        """
        return var_request.resolve(
            request, self._defaults, num_classes=self._num_classes, vocab_size=self._var.vocab_size
        )

    def path(self, request: ImageRequest) -> tuple[Leg, ...]:
        """Return one call for each scale, twice as wide with guidance, and one of the pixel decoder."""
        width = 2 if _guidance(request) else 1
        return (*(Leg(lane_of(k), 1, width) for k in range(len(self._var.scales))), Leg(PIXELS, 1))

    @torch.inference_mode()
    def open(self, request: ImageRequest) -> VarRow:
        """Seed a resolved request's noise and give it a place.

        Raises:
            EngineError: `capacity` rows are open.
        """
        self._rows.check_room()
        if request.class_id is None:
            raise EngineError("the request was not resolved: it has no class")
        guidance = _guidance(request)
        classes = [request.class_id, self._var.num_classes] if guidance else [request.class_id]
        row = VarRow(
            request=request,
            scales=len(self._var.scales),
            branches=tuple(self._transformer.open(class_id) for class_id in classes),
            guidance=guidance,
            sampler=TokenSampler(
                var_request.settings_of(request, self._defaults),
                None if self._greedy else torch.Generator().manual_seed(request.seed),
            ),
            features=self._no_features,
        )
        return self._rows.add(row)

    @torch.inference_mode()
    def step(self, rows: Sequence[VarRow]) -> None:
        """Decode the next scale of rows that share a lane, or their images.

        Raises:
            EngineError: too many rows, rows of different lanes, finished or closed ones.
        """
        self._rows.check_call(rows)
        if rows[0].scale < rows[0].scales:
            self._draw_scale(rows[0].scale, rows)
        else:
            self._decode_pixels(rows)

    @torch.inference_mode()
    def preview(self, row: VarRow) -> Pixels | None:
        """Return the image of the scales drawn so far, (H, W, 3), uint8 RGB, at the cost of decoding it.

        None: no scale was drawn yet; or all were, and the next call makes the image itself.
        """
        if not 0 < row.scale < row.scales:
            return None
        preview: Pixels = to_pixels(self._vqvae.decode_features(row.features))[0]
        return preview

    def image(self, row: VarRow) -> Pixels:
        """Return the finished image, (H, W, 3), uint8 RGB.

        Raises:
            EngineError: the row is not finished.
        """
        if row.pixels is None:
            raise EngineError(f"the image is not finished: {row.calls_left} calls are left")
        return row.pixels

    def close(self, row: VarRow) -> None:
        """Give the row's place back, finished or not.

        Raises:
            EngineError: the row is not open.
        """
        self._rows.remove(row)
        for branch in row.branches:
            self._transformer.close(branch)

    def _draw_scale(self, scale: int, rows: Sequence[VarRow]) -> None:
        quantizer = self._vqvae.quantize
        branches = [branch for row in rows for branch in row.branches]
        inputs = [quantizer.input_of(scale, row.features) for row in rows for _ in row.branches]
        logits = iter(self._transformer.predict(scale, branches, inputs))
        for row in rows:
            own = next(logits)
            if row.guidance:
                own = guide(own, next(logits), row.guidance * self._var.scales.ratio(scale))
            row.drawn.append(row.sampler.draw(own))
            row.features = row.features + quantizer.features_of(scale, row.drawn[-1][None])

    def _decode_pixels(self, rows: Sequence[VarRow]) -> None:
        for count, indices in self._decoder_buckets.calls(len(rows)):
            images = self._vqvae.decode_features(torch.cat([rows[i].features for i in indices]))
            for i, image in zip(indices[:count], to_pixels(images), strict=False):
                rows[i].pixels = image

    def _find_decoder_buckets(self, bucket_cache: BucketCache | None) -> Buckets:
        noise = torch.Generator().manual_seed(0)
        features = torch.randn(self._no_features.shape, generator=noise).to(self._no_features)
        most = min(self.max_rows, max(1, DECODE_PIXELS // self._vqvae.resolution**2))

        def decode(size: int) -> Tensor:
            return self._vqvae.decode_features(features.expand(size, -1, -1, -1))

        def search() -> list[Buckets]:
            found = Buckets.find(decode, powers_of_two(most), DECODE_CALL_COST)
            return [found.timed(lambda size: decode(size)[0, 0, 0, 0].item())]  # waits for the device

        return search()[0] if bucket_cache is None else bucket_cache.get("pixels", most, search)[0]


def _guidance(request: ImageRequest) -> float:
    """Return the guidance weight t at the last scale; 0 is none."""
    return request.cfg - 1 if request.var_raw_cfg is None else request.var_raw_cfg
