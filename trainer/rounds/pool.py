"""The pool of a round: images that its reference made, in files that appear whole or not at all.

All fakes of a round are made before it trains, for VAR as for diffusion: the reference does not change within
a round, so images made along the way would be the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import Progress

from engines import load, load_sampler
from engines.base import Engine
from engines.diffusion import DiffusionEngine
from engines.sampling import finish, generate
from engines.var_row import VarRow
from models.spec import PixelCodec, SdVaeCodec
from models.version import ModelVersion
from trainer.data.arrays import ArrayImages
from trainer.data.source import Indices, TrainingImages
from trainer.rounds.config import PoolConfig
from trainer.rounds.latents import GeneratedLatents
from trainer.rounds.tokens import LabelledTokens
from trainer.rounds.view import View
from trainer.training.processes import Processes

Shard = ArrayImages | GeneratedLatents | LabelledTokens


class Pool:
    """The images of one round, a shard for every `shard_images` of them.

    Pixels are 8-bit like the real images; of latent diffusion they are the samples themselves, and of VAR the
    tokens where the configuration says so. Classes take turns; an unconditional model's images are all of
    class 0, which it does not see.

    Args:
        directory: holds the shards, `00000.npz` and so on.
        config: which images, and how.
        version: the reference.
        number: of the round, from 1.
        class_names: of the real images.
    """

    def __init__(
        self,
        directory: Path,
        config: PoolConfig,
        version: ModelVersion,
        *,
        number: int,
        class_names: tuple[str, ...],
    ) -> None:
        plan = config.plan
        self._config = config
        self._plan = plan.model_copy(update={"seed": plan.seed + (number - 1) * plan.images})
        self._version = version
        self._class_names = class_names
        starts = range(0, plan.images, config.shard_images)
        self._shards = {
            directory / f"{index:05d}.npz": range(start, min(start + config.shard_images, plan.images))
            for index, start in enumerate(starts)
        }

    def fill(self, processes: Processes, view: View) -> None:
        """Make the shards that are missing; the processes share them, and all must call it.

        Raises:
            DataError: a shard cannot be written.
            EngineError: the engine cannot be built.
            InvalidRequestError: the model cannot make such images.
        """
        own = list(self._shards.items())[processes.rank :: processes.count]
        missing = [(path, numbers) for path, numbers in own if not path.exists()]
        if missing:
            settings = self._config.engine(str(processes.device))
            engine = (load_sampler if self._latent else load)(self._version, settings)
            count = sum(len(numbers) for _, numbers in own)
            bar = view.bar("pool", count, count - sum(len(numbers) for _, numbers in missing))
            for path, numbers in missing:
                with view.passing():
                    self._make(engine, numbers, view.progress).save(path)
                view.progress.advance(bar, len(numbers))
        processes.wait()

    def open(self) -> TrainingImages | LabelledTokens:
        """Return the whole pool, in memory.

        Raises:
            DataError: a shard is missing or damaged.
        """
        if self._config.contents == "tokens":
            drawn = [LabelledTokens.load(path) for path in self._shards]
            return replace(drawn[0], ids=np.concatenate([part.ids for part in drawn]), labels=_labels(drawn))
        if self._latent:
            samples = [GeneratedLatents.load(path) for path in self._shards]
            latents = np.concatenate([part.latents for part in samples])
            return replace(samples[0], latents=latents, labels=_labels(samples))
        codec = self._version.spec.codec
        fold = codec.fold if isinstance(codec, PixelCodec) else 1
        parts = [ArrayImages.load(path, fold) for path in self._shards]
        return replace(parts[0], images=np.concatenate([p.images for p in parts]), labels=_labels(parts))

    @property
    def _latent(self) -> bool:
        return isinstance(self._version.spec.codec, SdVaeCodec)

    def _make(self, engine: Engine[Any], numbers: range, progress: Progress) -> Shard:
        classes = len(self._version.spec.class_names)
        requests = [self._plan.request(number, classes) for number in numbers]
        labels = np.array([request.class_id or 0 for request in requests])
        if self._config.contents == "tokens":
            ids = np.stack(list(finish(engine, requests, progress, _drawn_tokens)))
            return LabelledTokens(ids, labels, classes)
        if self._latent and isinstance(engine, DiffusionEngine):
            samples = np.stack(list(finish(engine, requests, progress, engine.sample)))
            return GeneratedLatents(samples.astype(np.float16), labels, self._class_names)
        return ArrayImages(np.stack(list(generate(engine, requests, progress))), labels, self._class_names)


def _drawn_tokens(row: VarRow) -> Indices:
    return np.asarray(row.tokens.cpu().numpy())


def _labels(parts: Sequence[Shard]) -> Indices:
    return np.concatenate([part.labels for part in parts])
