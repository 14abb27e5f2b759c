"""Self-play rounds of VAR through the command line: what its fakes are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from round_toys import VAR_DDO, write_config
from typer.testing import CliRunner, Result

from engines import EngineSettings, load
from engines.base import ImageRequest
from models.version import open_version
from trainer.cli import app
from trainer.data.arrays import ArrayImages
from trainer.data.pixels import to_network
from trainer.rounds.records import Trial
from trainer.rounds.tokens import LabelledTokens

VAR_NEON = 'kind = "neon"\nweights = [1.0]\nobjective = { kind = "likelihood" }'
POOL_SEED = 1000


def ddo(config: Path) -> Result:
    place = config.parent
    return CliRunner().invoke(
        app, [*map(str, ("ddo", config, "--out", place / "out", "--registry", place / "reg"))]
    )


def trained_images(folder: Path) -> list[int]:
    """Return after how many images of training the round's one candidate was judged."""
    (candidate,) = [path for path in folder.iterdir() if (path / "best").exists()]
    lines = (candidate / "evaluations.jsonl").read_text().splitlines()
    return [Trial.model_validate_json(line).images for line in lines]


@pytest.mark.parametrize("method", [VAR_DDO, VAR_NEON])
def test_var_learns_from_decoded_and_encoded_fakes(method: str, tmp_path: Path) -> None:
    done = ddo(write_config(tmp_path, method, rounds=1))
    assert done.exit_code == 0, done.output
    folder = tmp_path / "out" / "round-01"
    shards = [ArrayImages.load(path) for path in sorted((folder / "pool").iterdir())]
    tokenizer = open_version(tmp_path / "var").network("vqvae")
    pixels = np.concatenate([shard.images for shard in shards])
    expected = tokenizer.encode(to_network(pixels, 1))
    with np.load(folder / "pool-tokens.npz") as arrays:
        assert np.array_equal(arrays["ids"], expected)
        assert np.array_equal(arrays["class_ids"], np.arange(24) % 4)
    assert (tmp_path / "out" / "tokens.npz").exists() == (method == VAR_DDO)
    (candidate,) = [path.name for path in folder.iterdir() if (path / "best").exists()]
    best = open_version(folder / candidate / "best").spec
    assert best.files["vqvae.safetensors"] == open_version(tmp_path / "var").spec.files["vqvae.safetensors"]
    assert trained_images(folder) == [24, 48]


@pytest.mark.parametrize("method", [VAR_DDO, VAR_NEON])
def test_var_learns_from_the_tokens_that_it_drew(method: str, tmp_path: Path) -> None:
    config = write_config(tmp_path, method, rounds=1)
    config.write_text(config.read_text().replace("[pool]", '[pool]\ncontents = "tokens"'))
    done = ddo(config)
    assert done.exit_code == 0, done.output
    folder = tmp_path / "out" / "round-01"
    assert not (folder / "pool-tokens.npz").exists()
    shards = [LabelledTokens.load(path) for path in sorted((folder / "pool").iterdir())]
    assert [shard.classes for shard in shards] == [4, 4, 4]
    engine = load(open_version(tmp_path / "var"), EngineSettings(precision="float32"))
    for number, ids in enumerate(np.concatenate([shard.ids for shard in shards])):
        row = engine.open(engine.resolve(ImageRequest(class_id=number % 4, seed=POOL_SEED + number)))
        while row.calls_left:
            engine.step([row])
        assert np.array_equal(row.tokens, ids)
        engine.close(row)
    assert trained_images(folder) == [24, 48]
    assert (folder / "result.json").exists()
