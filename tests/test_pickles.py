"""Published checkpoints are read as they are: EDM and EDM2 pickles, VAR archives, safetensors."""

from __future__ import annotations

import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import official
import pytest
import torch
from official import EDM2_INIT, EDM_INIT, VAR_INIT, VQVAE_INIT
from reference import fill, noise
from safetensors.torch import save_file
from torch import nn

from models import build, checkpoints
from models.checkpoints.var import vqvae_init
from models.errors import (
    CheckpointError,
    ModelNotFoundError,
    NonFiniteWeightsError,
    SchemaMismatchError,
    UnsafeCheckpointError,
)


def denoise(network: nn.Module) -> torch.Tensor:
    labels = torch.eye(3)[:2]
    with torch.no_grad():
        image: torch.Tensor = network(noise("pickles", (2, 3, 8, 8)), torch.tensor([0.5, 3.0]), labels)
    return image


@pytest.mark.parametrize("init", [EDM_INIT, EDM2_INIT], ids=lambda init: str(init["class_name"]))
def test_official_pickle_gives_the_network_back(tmp_path: Path, init: dict[str, Any]) -> None:
    network = fill(build(init))
    path = official.write_pickle(tmp_path / "network.pkl", official.persistent(network, init))
    checkpoint = checkpoints.load(path)
    assert checkpoint.init == init
    assert official.tensors_equal(checkpoint.state, network.state_dict())
    rebuilt = build(init)
    checkpoints.load_into(rebuilt, checkpoint.state)
    assert torch.equal(denoise(rebuilt), denoise(network))


def test_edm2_file_with_encoder_and_numpy_values_in_half_precision(tmp_path: Path) -> None:
    network = fill(build(EDM2_INIT)).half()
    path = tmp_path / "edm2.pkl"
    with official.published_modules() as easy_dict:
        encoder = official.Persistent(
            "StabilityVAEEncoder",
            {"scale": np.ones(4, np.float32), "seen": np.float64(3), "device": torch.device("cpu")},
        )
        ema = official.persistent(network, {**EDM2_INIT, "dropout": np.float64(0)})
        content = easy_dict(ema=ema, encoder=encoder, dataset_kwargs=easy_dict(a=1), dtype=torch.float16)
        path.write_bytes(pickle.dumps(content, protocol=4))
    checkpoint = checkpoints.load(path)
    assert checkpoint.init == {**EDM2_INIT, "dropout": 0.0}
    assert {tensor.dtype for tensor in checkpoint.state.values()} == {torch.float16}
    rebuilt = build(EDM2_INIT)
    checkpoints.load_into(rebuilt, checkpoint.state)
    assert all(tensor.dtype == torch.float32 for tensor in rebuilt.state_dict().values())
    assert official.tensors_equal(rebuilt.state_dict(), network.float().state_dict())


def test_views_of_one_storage_and_parameters_that_are_none(tmp_path: Path) -> None:
    both = torch.arange(12.0)
    state = {
        "_parameters": {
            "left": nn.Parameter(both[:6].view(2, 3)),
            "right": both[6:].view(3, 2).T,
            "bias": None,
        },
        "_buffers": {"kept": torch.ones(2), "transient": torch.ones(3)},
        "_non_persistent_buffers_set": {"transient"},
        "_modules": {"absent": None},
    }
    path = official.write_pickle(tmp_path / "views.pkl", official.bare("Precond", **state))
    loaded = checkpoints.load(path).state
    assert loaded.keys() == {"left", "right", "kept"}
    assert loaded["left"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert loaded["right"].tolist() == [[6, 8, 10], [7, 9, 11]]


def test_positional_arguments_are_named_and_neutral_ones_left_out(tmp_path: Path) -> None:
    named = {"use_fp16": True, "sigma_min": 0, "sigma_max": math.inf, "channel_mult": (1, 2)}
    ema = official.bare("EDMPrecond", _init_args=(8, 3, 3), _init_kwargs=named)
    init = checkpoints.load(official.write_pickle(tmp_path / "a.pkl", ema)).init
    assert init == {
        "class_name": "EDMPrecond",
        "img_resolution": 8,
        "img_channels": 3,
        "label_dim": 3,
        "channel_mult": [1, 2],
    }


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"_init_kwargs": {"sigma_max": 10.0, "loss": math.inf}}, "constructor argument is a float"),
        ({"_init_args": (8, 3, 3, True)}, "4 arguments without names"),
        ({"_init_kwargs": {"dtype": torch.float16}}, "constructor argument is a Global"),
        ({"_init_kwargs": None}, "does not say what it was constructed with"),
        ({"_parameters": {"w": 1.0}}, "w is not a tensor"),
        ({"_modules": {"child": {"a": 1}}}, "'child.' is not a module"),
        ({"_buffers": None}, "no proper _buffers"),
    ],
)
def test_networks_that_cannot_be_understood(tmp_path: Path, state: dict[str, Any], message: str) -> None:
    ema = official.bare("Precond", **state)
    with pytest.raises(CheckpointError, match=message):
        checkpoints.load(official.write_pickle(tmp_path / "a.pkl", ema))


@pytest.mark.parametrize("content", [{"net": 1}, [1, 2], {"ema": {"a": 1}}, {"ema": None}])
def test_pickle_without_a_network(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "other.pkl"
    path.write_bytes(pickle.dumps(content, protocol=4))
    with pytest.raises(CheckpointError, match="network under 'ema'"):
        checkpoints.load(path)


def test_unknown_network_class(tmp_path: Path) -> None:
    ema = official.bare("VEPrecond")
    with pytest.raises(CheckpointError, match="class is 'VEPrecond'; known: EDMPrecond, Precond"):
        checkpoints.load(official.write_pickle(tmp_path / "a.pkl", ema))


@pytest.mark.parametrize("nested", [False, True], ids=["flat", "trainer"])
@pytest.mark.parametrize(
    "changes", [{}, {"attn_l2_norm": False, "num_heads": 1}, {"shared_aln": True}, {"depth": 1}]
)
def test_var_archive_tells_its_arguments(tmp_path: Path, nested: bool, changes: dict[str, Any]) -> None:
    init = {**VAR_INIT, **changes}
    network = fill(build(init))
    state: dict[str, Any] = network.state_dict()
    content = {"epoch": 3, "trainer": {"var_wo_ddp": state, "iterations": [1]}} if nested else state
    checkpoint = checkpoints.load(official.write_archive(tmp_path / "var.pth", content))
    assert checkpoint.init == init
    assert official.tensors_equal(checkpoint.state, state)


def test_tokenizer_arguments_follow_from_shapes_and_the_scales_of_its_var() -> None:
    with torch.device("meta"):
        state = build(VQVAE_INIT).state_dict()
    assert vqvae_init(state, VQVAE_INIT["patch_nums"]) == VQVAE_INIT  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match="3 scales, not the 10"):
        vqvae_init(state)


def test_safetensors_are_told_by_content_not_by_name(tmp_path: Path) -> None:
    state = build(VAR_INIT).state_dict()
    save_file(state, tmp_path / "weights.bin")
    checkpoint = checkpoints.load(tmp_path / "weights.bin")
    assert checkpoint.init == VAR_INIT
    assert official.tensors_equal(checkpoint.state, state)
    save_file({"a": torch.ones(2)}, tmp_path / "other.pth")
    assert checkpoints.load(tmp_path / "other.pth").init is None


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="there is no file"):
        checkpoints.load(tmp_path / "none.pkl")


def test_names_missing_and_extra_and_both_shapes_are_told() -> None:
    network = build(VAR_INIT)
    state = dict(network.state_dict())
    state["head.wait"] = state.pop("head.weight")
    state["pos_1LC"] = torch.zeros(1, 15, 64)
    state["lvl_1L"] = torch.zeros(1, 14)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(SchemaMismatchError) as caught:
        checkpoints.load_into(network, state)
    message = str(caught.value)
    assert "missing (1): head.weight" in message
    assert "not part of the network (1): head.wait" in message
    assert "pos_1LC (1, 15, 64) in the file, (1, 14, 64) in the network" in message
    assert "lvl_1L torch.float32 in the file, torch.int64 in the network" in message
    assert official.tensors_equal(network.state_dict(), before)


def test_long_lists_of_names_are_cut() -> None:
    network = build(VAR_INIT)
    with pytest.raises(
        SchemaMismatchError, match=rf"missing \({len(network.state_dict())}\): .* and \d+ more"
    ):
        checkpoints.load_into(network, {})


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_non_finite_weights_need_a_flag(value: float, capsys: pytest.CaptureFixture[str]) -> None:
    network = build(VAR_INIT)
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    state["head.bias"][3] = value
    with pytest.raises(NonFiniteWeightsError, match=r"head\.bias"):
        checkpoints.load_into(network, state)
    checkpoints.load_into(network, state, allow_non_finite=True)
    assert not torch.isfinite(network.state_dict()["head.bias"]).all()
    assert "head.bias" in capsys.readouterr().out


def test_masks_of_infinities_are_fine_but_nan_in_a_buffer_is_not() -> None:
    network = build(VAR_INIT)
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    assert torch.isinf(state["attn_bias_for_masking"]).any()
    checkpoints.load_into(network, state)
    state["attn_bias_for_masking"][0, 0, 0, 0] = math.nan
    with pytest.raises(NonFiniteWeightsError, match="attn_bias_for_masking"):
        checkpoints.load_into(network, state)


def test_embedded_source_is_never_run(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    source = f"open({str(canary)!r}, 'w')"
    network = fill(build(EDM_INIT))
    ema = official.persistent(network, EDM_INIT, source=source)
    checkpoints.load(official.write_pickle(tmp_path / "a.pkl", ema))
    assert not canary.exists()
    exec(source)  # The canary sings when run.
    assert canary.exists()


def test_tied_tensors_may_not_unfold_beyond_the_file(tmp_path: Path) -> None:
    weight = torch.ones(1000)
    state = {f"copy{i}": weight for i in range(50)}
    with pytest.raises(UnsafeCheckpointError, match="the tensors claim 200,000 bytes"):
        checkpoints.load(official.write_archive(tmp_path / "tied.pth", state))
