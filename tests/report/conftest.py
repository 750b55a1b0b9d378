"""Results to report: of a network that takes a second, with labels, with images only, without."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import dreamquant
from dreamquant.networks import demo
from dreamquant.report.read import read_record

SPEC = dreamquant.InputSpec(
    shape=(3, 8, 8),
    mean=(0.5,) * 3,
    std=(0.25,) * 3,
    num_classes=5,
    class_names=("cat", "<b>dog</b>", "tench, Tinca tinca", "ship", "4"),
)


def network() -> nn.Module:
    torch.manual_seed(0)
    convolutions = [nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU()]
    convolutions += [nn.Conv2d(6, 8, 3), nn.BatchNorm2d(8), nn.ReLU()]
    return nn.Sequential(*convolutions, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))


def quantize(out: Path, **options):
    defaults = {"input": SPEC, "method": "adadfq", "iterations": 12, "device": "cpu", "out": out}
    return dreamquant.quantize(network(), quiet=True, **defaults | options)


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    """A result with labelled images."""
    parent = tmp_path_factory.mktemp("report")
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (60, 8, 8, 3), dtype=np.uint8)
    np.savez(parent / "labelled.npz", images=images, labels=random.integers(0, 5, 60))
    np.savez(parent / "unlabelled.npz", images=images)
    quantize(parent / "out", bits="w3a3", data=parent / "labelled.npz")
    return parent / "out"


@pytest.fixture(scope="session")
def unlabelled(folder) -> Path:
    """A result with images that have no labels."""
    images = folder.parent / "unlabelled.npz"
    quantize(folder.parent / "unlabelled", placement="layer-input", data=images)
    return folder.parent / "unlabelled"


@pytest.fixture(scope="session")
def synthetic(folder) -> Path:
    """A result with no images at all."""
    quantize(folder.parent / "synthetic")
    return folder.parent / "synthetic"


@pytest.fixture
def record(folder):
    """That of the labelled result, free to be changed."""
    return read_record(folder)


@pytest.fixture
def copied(folder, tmp_path) -> Path:
    """The labelled result, free to be changed."""
    return Path(shutil.copytree(folder, tmp_path / "copied"))


SMALLER = """
from torch import nn

def smaller():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 10),
    )
"""


@pytest.fixture(scope="session")
def distilled(tmp_path_factory) -> Path:
    """A network in float that learned from another."""
    parent = tmp_path_factory.mktemp("distilled")
    (parent / "small.py").write_text(SMALLER)
    options = {"iterations": 4, "device": "cpu", "quiet": True, "out": parent / "out"}
    dreamquant.distill(demo.teacher(), f"{parent / 'small.py'}:smaller", **options)
    return parent / "out"
