"""Fresh weights follow their law, and are not drawn where others replace them."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import pytest
import torch
from reference import DATA
from torch import nn

from models import build
from models.networks.edm_layers import Initializer
from models.networks.undrawn import Undrawn

TINY = ("edm-song-vp-tiny-cond", "edm-adm-tiny-cond", "edm2-tiny", "var-tiny", "var-tiny.vqvae")

LOADING = """
import sys
from pathlib import Path
from models.registry import Registry
from server.settings import BUNDLED
for name in ("main", "vqvae"):
    Registry(BUNDLED).open("emoji-var", 1).network(name)
Registry(BUNDLED).open("emoji-edm", 1).network()
print([name for name in sys.modules if name.startswith(("torch._dynamo", "torch._inductor"))])
"""


@pytest.mark.parametrize(
    ("mode", "deviation"),
    [
        ("xavier_uniform", math.sqrt(2 / 500)),
        ("kaiming_uniform", math.sqrt(1 / 300)),
        ("kaiming_normal", math.sqrt(1 / 300)),
    ],
)
def test_weights_have_the_deviation_of_their_law(mode: str, deviation: float) -> None:
    torch.manual_seed(0)
    init = Initializer(mode, weight=0.5, bias=2.0)
    assert init((200, 300), 300, 200).std().item() == pytest.approx(0.5 * deviation, rel=0.02)
    assert init((200, 300), 300, 200, bias=True).std().item() == pytest.approx(2 * deviation, rel=0.02)
    largest = init((200, 300), 300, 200).abs().max().item() / (0.5 * deviation)
    assert largest > 3.5 if mode == "kaiming_normal" else largest == pytest.approx(math.sqrt(3), rel=0.01)


@pytest.mark.parametrize("name", TINY)
def test_weights_to_be_replaced_are_not_drawn(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    init = json.loads((DATA / f"{name}.json").read_text())["init"]
    for draw in ("_no_grad_uniform_", "_no_grad_normal_"):
        monkeypatch.setattr(nn.init, draw, lambda *_, **__: pytest.fail("drawn"))
    with Undrawn():
        network = build(init)
    assert {tensor.device.type for tensor in network.state_dict().values()} == {"cpu"}
    with pytest.raises(BaseException, match="drawn"):
        build(init)


def test_reading_weights_does_not_load_a_compiler() -> None:
    loading = subprocess.run([sys.executable, "-c", LOADING], capture_output=True, text=True, check=True)
    assert loading.stdout == "[]\n"
