"""Self-play rounds through the command line, on models of a few thousand parameters."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from reference import DATA
from rich.progress import Progress
from round_toys import CLASSES, EDM, Means, edm_version, run, sealed, start, write_config
from typer.testing import CliRunner, Result

from engines import EngineSettings, load, load_sampler
from engines.base import ImageRequest
from engines.sampling import finish, generate
from models.networks import force_unit_weights
from models.registry import Registry
from models.spec import DiffusionDefaults, PixelCodec, SdVaeCodec
from models.version import ModelVersion, open_version
from trainer.cli import app
from trainer.config import load_config
from trainer.data.arrays import ArrayImages
from trainer.errors import DataError, TrainerError
from trainer.evaluation.evaluate import Evaluation, generated_batches
from trainer.evaluation.images import RealImages
from trainer.evaluation.judge import Figures, Judge
from trainer.evaluation.plan import SamplingPlan
from trainer.rounds.config import PoolConfig, RoundsConfig
from trainer.rounds.networks import reference_network, trained_network
from trainer.rounds.pool import Pool
from trainer.rounds.records import RoundResult, Trial, Trials
from trainer.rounds.view import View
from trainer.training.processes import Processes

CPU, QUIET = torch.device("cpu"), Progress(disable=True)
FLOAT32 = EngineSettings(precision="float32", max_rows=16)

SWEEP = 'kind = "diffusion-ddo"\nalphas = [1.0]\nbetas = [0.02, 0.1]'
NEON = 'kind = "neon"\nweights = [0.5, 2.0]\nobjective = { kind = "denoising" }'


def ddo(config: Path) -> Result:
    place = config.parent
    return CliRunner().invoke(
        app, [*map(str, ("ddo", config, "--out", place / "out", "--registry", place / "reg"))]
    )


def trials(folder: Path) -> list[Trial]:
    lines = (folder / "evaluations.jsonl").read_text().splitlines()
    return [Trial.model_validate_json(line) for line in lines]


def result(folder: Path) -> RoundResult:
    return RoundResult.model_validate_json((folder / "result.json").read_bytes())


def main(version: ModelVersion) -> dict[str, torch.Tensor]:
    return dict(version.network().state_dict())


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The place of two rounds with two candidates each."""
    place = tmp_path_factory.mktemp("sweep")
    torch.backends.cudnn.allow_tf32 = True
    done = ddo(write_config(place, SWEEP, rounds=2))
    assert done.exit_code == 0, done.output
    assert not torch.backends.cudnn.allow_tf32, "the log-ratio would be lost in it"
    assert "the best version is tiny/0003" in done.output
    return place


@pytest.mark.parametrize("number", [1, 2])
def test_a_round_publishes_its_best_candidate(number: int, ended: Path) -> None:
    folder = ended / "out" / f"round-{number:02d}"
    found = {name: trials(folder / name) for name in ("alpha1-beta0.02", "alpha1-beta0.1")}
    assert [[trial.images for trial in each] for each in found.values()] == [[24, 48]] * 2
    assert found["alpha1-beta0.02"] != found["alpha1-beta0.1"]
    best = min((t.figures.frechet_distance, name) for name, each in found.items() for t in each)
    best_of = result(folder)
    assert (best_of.figures.frechet_distance, best_of.candidate) == best
    assert (best_of.round, best_of.version, best_of.parent) == (
        number,
        f"tiny/{number + 1:04d}",
        f"tiny/{number:04d}",
    )

    registry = Registry(ended / "reg")
    assert registry.current("tiny") == 3
    published = registry.verify("tiny", number + 1)
    lineage = published.spec.lineage
    assert (lineage.parent, lineage.round) == (best_of.parent, number)
    assert lineage.metrics["frechet_distance_means"] == best[0]
    assert lineage.source.startswith(
        f"DDO, alpha 1, beta {best[1].split('beta')[1]}, {best_of.images} images"
    )
    assert {"ATTRIBUTION.md", "golden.png"} < published.spec.files.keys()
    assert published.spec.networks["main"].init["dropout"] == 0.1, "the network is still what it was"
    kept = main(open_version(folder / best_of.candidate / "best"))
    assert all(torch.equal(tensor, kept[name]) for name, tensor in main(published).items())


def test_the_figures_that_decide_are_those_of_what_is_published(ended: Path) -> None:
    plan = load_config(ended / "run.toml", RoundsConfig).evaluation.plan
    real = RealImages(ArrayImages.load(ended / "data.npz"), "painted")
    judge = Judge(Means(None), QUIET, real=real, neighbours=False)
    base = Evaluation.model_validate_json((ended / "out" / "base.json").read_bytes())
    decisive = [base.generated, *(result(ended / "out" / f"round-0{number}").figures for number in (1, 2))]
    assert decisive[0].frechet_distance > decisive[1].frechet_distance > decisive[2].frechet_distance
    for number, figures in enumerate(decisive, start=1):
        engine = load(Registry(ended / "reg").open("tiny", number), FLOAT32)
        assert judge.figures_of(generated_batches(engine, plan, len(CLASSES), QUIET)) == figures


@pytest.mark.parametrize("number", [1, 2])
def test_the_pool_is_the_references_own(number: int, ended: Path) -> None:
    shards = sorted((ended / "out" / f"round-0{number}" / "pool").iterdir())
    assert [path.name for path in shards] == ["00000.npz", "00001.npz", "00002.npz"]
    pool = [ArrayImages.load(path) for path in shards]
    assert [len(shard) for shard in pool] == [10, 10, 4]
    assert np.concatenate([shard.labels for shard in pool]).tolist() == [i % 4 for i in range(24)]
    engine = load(Registry(ended / "reg").open("tiny", number), FLOAT32)
    request = ImageRequest(class_id=13 % 4, seed=1000 + 24 * (number - 1) + 13)
    assert np.array_equal(next(generate(engine, [request], QUIET)), pool[1].images[3])


def test_training_starts_where_the_reference_is(ended: Path) -> None:
    """At first r = 0 to the bit, which dropout or another order of sums would spoil."""
    for folder in (ended / "out").glob("round-*/alpha*"):
        first, *others = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        assert (first["real"], first["fake"], first["accuracy"]) == (0, 0, 0.5)
        assert first["loss"] == pytest.approx(2 * np.log(2))
        assert all(line["real"] != 0 for line in others if "real" in line)
        assert sum("half-life-8/frechet_distance" in line for line in others) == 2
        sheets = [path.name for path in sorted((folder / "grids").iterdir())]
        assert sheets == ["000000024.png", "000000048.png"]


def test_neon_steps_away_from_what_its_own_images_teach(tmp_path: Path) -> None:
    done = ddo(write_config(tmp_path, NEON, rounds=1, every=48))
    assert done.exit_code == 0, done.output
    folder = tmp_path / "out" / "round-01"
    found = trials(folder / "self")
    assert [(trial.images, trial.w) for trial in found] == [(48, 0.5), (48, 2.0)]
    best = min(found, key=lambda trial: trial.figures.frechet_distance)
    assert (result(folder).w, result(folder).candidate) == (best.w, "self")
    state = torch.load(folder / "self" / "state.pt", weights_only=True)
    origin, tried = main(open_version(tmp_path / "edm")), main(open_version(folder / "self" / "best"))
    assert best.w is not None
    for name, taught in state["averages"]["half-life-8"].items():
        expected = origin[name].half().float() + best.w * (origin[name].half().float() - taught)
        torch.testing.assert_close(tried[name], expected.half().float(), atol=1e-3, rtol=1e-2)
        assert torch.equal(tried[name], origin[name]) == torch.equal(taught, origin[name])


def test_two_processes_do_what_one_does(tmp_path: Path) -> None:
    config = write_config(tmp_path, rounds=1)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    outs = {"one": tmp_path / "one", "two": tmp_path / "two"}
    places = {
        name: ("ddo", config, "--out", out, "--registry", tmp_path / f"{name}-registry")
        for name, out in outs.items()
    }
    pair = [start(*places["two"], rank=f"{number}/2:{port}") for number in range(2)]
    assert run(*places["one"]) == 0
    for process in pair:
        process.join(60)
    assert [process.exitcode for process in pair] == [0, 0]
    for shard in sorted((outs["one"] / "round-01" / "pool").iterdir()):
        assert shard.read_bytes() == (outs["two"] / "round-01" / "pool" / shard.name).read_bytes()
    folders = [out / "round-01" / "alpha1-beta0.1" for out in outs.values()]
    logs = [
        [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()] for folder in folders
    ]
    one, two = ([line["loss"] for line in log if "loss" in line] for log in logs)
    assert len(one) == 6
    assert two == pytest.approx(one, rel=1e-2)
    assert len(trials(folders[0])) == len(trials(folders[1])) == 2
    assert len(Registry(tmp_path / "two-registry").versions("tiny")) == 2


def test_a_candidate_ends_when_patience_does(tmp_path: Path) -> None:
    """Nothing can be better than the first evaluation where all weights are the same."""
    config = write_config(tmp_path, rounds=3, every=8, evaluation="patience = 2")
    config.write_text(config.read_text().replace("learning_rate = 5e-3", "learning_rate = 1e-30"))
    done = ddo(config)
    assert done.exit_code == 0, done.output
    found = trials(tmp_path / "out" / "round-01" / "alpha1-beta0.1")
    assert [trial.images for trial in found] == [8, 16, 24]
    ended = result(tmp_path / "out" / "round-01")
    assert (ended.version, ended.parent, ended.images) == (None, "tiny/0001", 8)
    assert not (tmp_path / "out" / "round-02").exists(), "a round without success is the last"
    assert Registry(tmp_path / "reg").versions("tiny") == [1]


def test_a_candidate_that_diverges_leaves_the_round_to_the_others(tmp_path: Path) -> None:
    wild = 'kind = "diffusion-ddo"\nalphas = [1.0]\nbetas = [1e38, 0.1]'
    done = ddo(write_config(tmp_path, wild, rounds=1))
    assert done.exit_code == 0, done.output
    assert "candidate diverged" in done.output
    assert result(tmp_path / "out" / "round-01").candidate == "alpha1-beta0.1"
    (tmp_path / "alone").mkdir()
    alone = ddo(write_config(tmp_path / "alone", wild.replace(", 0.1]", "]"), rounds=1))
    assert alone.exit_code == 1
    assert "diverged before it was judged" in alone.output


@pytest.mark.parametrize("name", ["edm", "edm2-tiny"])
def test_the_reference_is_what_training_starts_with(name: str, tmp_path: Path) -> None:
    if name == "edm":
        version = edm_version(tmp_path / "edm")
    else:
        init = {**json.loads((DATA / "edm2-tiny.json").read_text())["init"], "dropout": 0.3}
        version = sealed(
            tmp_path / "edm2", "edm2", {"main": init}, codec=PixelCodec(), defaults=DiffusionDefaults()
        )
    network = trained_network(version, CPU, dropout=False, uncertainty=False)
    force_unit_weights(network)  # as the loop does before its first step
    reference = reference_network(version, CPU)
    init = version.spec.networks["main"].init
    size, classes = init["img_resolution"], init["label_dim"]
    arguments = (torch.randn(3, init["img_channels"], size, size), torch.rand(3), torch.eye(classes)[:3])
    assert torch.equal(network(*arguments), reference(*arguments))
    before = [parameter.clone() for parameter in reference.parameters()]
    assert torch.equal(reference(*arguments), reference(*arguments))
    assert all(map(torch.equal, before, reference.parameters()))
    assert not any(parameter.requires_grad for parameter in reference.parameters())
    still = [name for name, parameter in network.named_parameters() if not parameter.requires_grad]
    assert still == ([] if name == "edm" else ["logvar_linear.weight"])
    taught = trained_network(version, CPU, dropout=True, uncertainty=True)
    assert not torch.equal(taught(*arguments), taught(*arguments)), (
        "self-training drops out as pretraining did"
    )
    assert all(parameter.requires_grad for parameter in taught.parameters())


def test_a_pool_of_latents_holds_what_the_sampler_ends_with(tmp_path: Path) -> None:
    init = {**EDM, "img_channels": 4, "dropout": 0.0}
    codec = SdVaeCodec(repository=str(tmp_path / "nowhere"))
    version = sealed(tmp_path / "v", "edm", {"main": init}, codec=codec, defaults=DiffusionDefaults(steps=2))
    config = PoolConfig(plan=SamplingPlan(images=7, seed=3), shard_images=4, rows=2)
    pool = Pool(tmp_path / "pool", config, version, number=1, class_names=CLASSES)
    pool.fill(Processes(0, 1, CPU), View(silent=True))
    with np.load(tmp_path / "pool" / "00001.npz") as arrays:
        assert (arrays["images"].dtype, arrays["images"].shape) == (np.float16, (3, 4, 4, 4))
        assert arrays["labels"].tolist() == [0, 1, 2]
    images = pool.open()
    assert (len(images), images.shape, images.class_names) == (7, (4, 4, 4), CLASSES)
    engine = load_sampler(version, config.engine("cpu"))
    request = ImageRequest(class_id=1, seed=3 + 5)
    (sample,) = finish(engine, [request], QUIET, engine.sample)
    read = images.read(np.array([5]))
    assert read.dtype == torch.float32
    assert np.array_equal(read[0].half().numpy(), sample.astype(np.float16))
    (tmp_path / "pool" / "00000.npz").write_bytes(b"half a file")
    with pytest.raises(DataError, match=r"cannot read the latents .*00000\.npz"):
        pool.open()


def test_recall_can_decide(tmp_path: Path) -> None:
    figures = {"images": 2, "frechet_distance": 1.0}
    folder = Trials(tmp_path)
    for images, recall in ((8, 0.2), (16, 0.5), (24, 0.5)):
        folder.add(Trial(images=images, average="a", w=None, figures=Figures(**figures, recall=recall)))
    best = Trials(tmp_path).best("recall")
    assert best is not None
    assert (best.images, folder.since_best("recall")) == (16, 1)
    with pytest.raises(TrainerError, match="there is no precision to choose by"):
        folder.best("precision")
