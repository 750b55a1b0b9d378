"""Every remedy that an error prints: a test makes the error, and names in remedies are real."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import dreamquant
from dreamquant.errors import DataError, MethodError, NetworkError
from dreamquant.evaluation.data import open_images
from dreamquant.methods import find_method
from dreamquant.networks.load import load_network
from dreamquant.networks.origins import named_boxes
from dreamquant.networks.spec import InputSpec
from printed_commands import OTHERS, known_options
from remedies import ROOT, Site, shared, sites, texts_of_tests

SITES = list(sites())
SPEC = InputSpec((3, 8, 8), (0.0,) * 3, (1.0,) * 3, 4)
# Errors whose texts are all filled in, by what another error or a library says, and these, which
# no test makes yet, with the reason.
NOT_MADE = {
    "jobs/checkpoint.py:_unusable": "its messages are its callers', which tests make",
    "jobs/grid.py:_wrong": "likewise",
}


def made(site: Site, tests: str) -> bool:
    """Whether a test has the message of a site, or its remedy."""
    return any(shared(text, tests) for text in (*site.what, *site.remedy))


def test_every_error_with_a_remedy_is_made_in_a_test() -> None:
    tests = texts_of_tests()
    lacking = [
        site.name
        for site in SITES
        if any(len(text.split()) > 1 for text in (*site.what, *site.remedy))
        and not made(site, tests)
        and f"{site.module}:{site.function}" not in NOT_MADE
    ]
    assert lacking == [], "write a test that makes the error and tries its remedy"
    assert len(SITES) > 200


def test_options_and_extras_that_remedies_name_are_there() -> None:
    texts = " ".join(text for site in SITES for text in (*site.what, *site.remedy))
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", texts))
    assert named <= known_options() | OTHERS
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    assert set(re.findall(r"dreamquant\[(\w+)\]", texts)) <= extras.keys()


# --------------------------------------------------- errors that no other test makes


def test_an_npz_without_images(tmp_path: Path) -> None:
    images = np.zeros((2, 8, 8, 3), np.uint8)
    np.savez(tmp_path / "a.npz", x=images)
    with pytest.raises(DataError, match=r"the \.npz contains no array named images"):
        open_images(tmp_path / "a.npz", SPEC)
    np.savez(tmp_path / "a.npz", images=images, labels=np.arange(2))
    assert open_images(tmp_path / "a.npz", SPEC).labelled


def test_boxes_that_are_no_function(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text("number = 3\ndef boxes(outputs):\n    return outputs\n")
    with pytest.raises(NetworkError, match="does not name a function"):
        named_boxes("boxes")
    with pytest.raises(NetworkError, match="is not a function"):
        named_boxes(f"{tmp_path / 'net.py'}:number")
    assert named_boxes(f"{tmp_path / 'net.py'}:boxes")(3) == 3


def test_arguments_of_a_factory(tmp_path: Path) -> None:
    (tmp_path / "file.py").write_text(
        "from torch import nn\nINPUT, MEAN, STD = (3, 8, 8), [0] * 3, [1] * 3\n"
        "def Net(width):\n    return nn.Sequential(nn.Flatten(), nn.Linear(192, int(8 * width)))\n"
    )
    with pytest.raises(NetworkError, match="are not literals: ") as e:
        load_network(f"{tmp_path / 'file.py'}:Net(width=some)")
    call = e.value.remedy.partition("FILE.py:")[2]
    assert load_network(f"{tmp_path / 'file.py'}:{call}").input.num_classes == 4


def test_a_method_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text("mine = 3\n")
    with pytest.raises(MethodError, match=r"is no dreamquant\.Method but a") as e:
        find_method(f"{tmp_path / 'm.py'}:mine")
    shown = ROOT / e.value.remedy.split()[0]
    assert find_method(f"{shown}:mine").name


class Attends(nn.Module):
    """Attention with keys of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 4)
        self.attention = nn.MultiheadAttention(8, 2, add_bias_kv=True, batch_first=True)

    def forward(self, x: torch.Tensor) -> Any:
        """Logits (B, 4)."""
        x = self.embed(x).flatten(2).transpose(1, 2)
        return self.head(self.attention(x, x, x)[0].mean(1))


def test_attention_with_keys_of_its_own() -> None:
    options: dict[str, Any] = {"input": SPEC, "device": "cpu", "quiet": True}
    with pytest.raises(NetworkError, match=r"nn\.MultiheadAttention with add_bias_kv") as e:
        dreamquant.quantize(Attends(), "w8a8", "squant", placement="operands", **options)
    assert "--placement layer-input" in e.value.remedy
    result = dreamquant.quantize(
        Attends(), "w8a8", "squant", placement="layer-input", scheme="integer", **options
    )
    assert result.manifest["coverage"]["left_in_float"]


def test_an_output_without_a_tensor() -> None:
    class Nothing(nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            return [] if self.training is None else {}

    with pytest.raises(NetworkError, match="its output contains no tensor"):
        dreamquant.quantize(Nothing(), "w8a8", input=SPEC, device="cpu", quiet=True)


def test_an_onnx_file_for_two_images_at_once(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 4)).eval()
    for batch in (2, 1):
        example = (torch.zeros(batch, 3, 8, 8),)
        torch.onnx.export(net, example, tmp_path / f"{batch}.onnx", dynamo=True, verbose=False)
    known: dict[str, Any] = {"mean": (0.0,) * 3, "std": (1.0,) * 3}
    with pytest.raises(NetworkError, match="the file does not take a batch of one"):
        load_network(str(tmp_path / "2.onnx"), **known)
    assert load_network(str(tmp_path / "1.onnx"), **known).input.num_classes == 4
