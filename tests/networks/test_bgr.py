"""Networks with channels blue, green, red: images are converted there and back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import dreamquant
from dreamquant.errors import NetworkError
from dreamquant.evaluation.data import open_images
from dreamquant.export.job import export_result
from dreamquant.export.runtime import open_onnx
from dreamquant.networks.load import load_network
from dreamquant.networks.pixels import denormalise, normalise
from dreamquant.networks.spec import InputSpec

MEAN, STD = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
FILE = """
from torch import nn
INPUT, MEAN, STD, BGR = (3, 8, 8), (0.1, 0.2, 0.3), (0.5, 0.6, 0.7), True

def make():
    return nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(180, 4))
"""


def spec(**more: bool) -> InputSpec:
    return InputSpec((3, 8, 8), MEAN, STD, 4, **more)


def test_pixels_are_turned_and_turned_back() -> None:
    pixels = torch.randint(0, 256, (2, 3, 8, 8))
    seen = normalise(pixels, spec(bgr=True))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    assert torch.allclose(seen, (pixels[:, [2, 1, 0]] / 255 - mean) / std)
    assert torch.allclose(denormalise(seen, spec(bgr=True)), pixels / 255, atol=1e-6)


def test_a_file_says_it_or_the_user(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(FILE)
    assert load_network(f"{tmp_path / 'net.py'}:make").input.bgr
    (tmp_path / "net.py").write_text(FILE.replace("True", "False"))
    assert not load_network(f"{tmp_path / 'net.py'}:make").input.bgr
    assert load_network(f"{tmp_path / 'net.py'}:make", bgr=True).input.bgr


def test_evaluation_images_come_in_the_order_of_the_network(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8)
    np.savez(tmp_path / "a.npz", images=images)
    (seen,) = open_images(tmp_path / "a.npz", spec(bgr=True)).batches(2)
    np.savez(tmp_path / "b.npz", images=images[..., ::-1])
    (turned,) = open_images(tmp_path / "b.npz", spec()).batches(2)
    assert torch.equal(seen, turned)


def test_what_has_no_three_colours_is_refused() -> None:
    with pytest.raises(NetworkError, match="no colour channels") as e:
        InputSpec((1, 8, 8), (0.0,), (1.0,), 4, bgr=True)
    assert e.value.where == "--bgr"


@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
def test_a_file_that_takes_pixels_takes_them_red_first(tmp_path: Path, layout: str) -> None:
    for package in ("onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    (tmp_path / "net.py").write_text(FILE)
    network = load_network(f"{tmp_path / 'net.py'}:make")
    out = tmp_path / "out"
    result = dreamquant.quantize(network, "w8a8", "squant", device="cpu", quiet=True, out=out)
    assert "--bgr" in (out / "report.html").read_text()
    (file,) = export_result(result, ["int8box"], preprocessing=layout, to=out)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)
    images = normalise(torch.from_numpy(pixels).permute(0, 3, 1, 2), network.input)
    feed = pixels if layout == "nhwc" else pixels.transpose(0, 3, 1, 2)
    opened = open_onnx(file.path)
    (raw,) = opened.session.run({"images": np.ascontiguousarray(feed)}, ["logits"])
    assert np.array_equal(raw, opened(images).numpy())
    assert np.allclose(raw, result.model(images).detach().numpy(), atol=0.05)
