"""A network that quantizes in seconds, for what does not depend on the network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from dreamquant import InputSpec, Method, Result, quantize
from dreamquant.methods import METHODS

CLASSES = 5
INPUT = InputSpec(shape=(1, 8, 8), mean=(0.5,), std=(0.25,), num_classes=CLASSES)


def network() -> nn.Module:
    """conv-BN-ReLU twice and a linear layer, for images of 1 x 8 x 8."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 8, 3, stride=2, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, CLASSES),
    )


def options(folder: Path, iterations: int) -> Sequence[str]:
    """What `dreamquant quantize` needs but for ``--out``; the weights are put into ``folder``."""
    weights = folder / "tiny.safetensors"
    save_file(_seeded().state_dict(), weights)
    return (
        *(f"{__file__}:network", "--weights", str(weights)),
        *("--input", "1x8x8", "--mean", "0.5", "--std", "0.25", "--bits", "w3a3"),
        *("--method", "adadfq", "--iterations", str(iterations), "--device", "cpu"),
    )


def job(out: Path, iterations: int = 2, method: Method = METHODS["adadfq"]) -> Result:
    """Quantize it in this process into a folder, or go on with what is there."""
    return quantize(
        _seeded(),
        "w3a3",
        method,
        input=INPUT,
        iterations=iterations,
        device="cpu",
        out=out,
        resume=True,
        quiet=True,
    )


def _seeded() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return network()
