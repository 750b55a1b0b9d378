"""A small trained network and its test images, so that everything can be tried offline.

The network reads the 8 x 8 grey digits that come with scikit-learn: E. Alpaydin and C. Kaynak,
"Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998,
https://doi.org/10.24432/C50P49, CC BY 4.0. Pixels are scaled here from 0 ... 16 to 0 ... 255.
``tools/train_digits.py`` made both files; ``tools/train_digits_transformer.py`` made the weights of
a small transformer for the same images.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from dreamquant.networks.spec import InputSpec

if TYPE_CHECKING:
    from dreamquant.networks.load import Network

NETWORK = Path(__file__).parent / "network.py"
"""The file whose factory ``digits`` builds the network."""

WEIGHTS = Path(__file__).parent / "digits.safetensors"
"""The state dict of ``dreamquant.networks.demo.network.digits()``."""

TRANSFORMER = Path(__file__).parent / "transformer.py"
"""The file whose factory ``digits`` builds the transformer."""

TRANSFORMER_WEIGHTS = Path(__file__).parent / "transformer.safetensors"
"""The state dict of ``dreamquant.networks.demo.transformer.digits()``."""

HELD_OUT = Path(__file__).parent / "held_out.npz"
"""``images`` (597, 8, 8, 1) and ``labels`` (597,), both uint8; not used in training."""

INPUT = InputSpec(
    shape=(1, 8, 8),
    # Mean and std of the training split; tools/train_digits.py refuses to train with others.
    mean=(0.3054,),
    std=(0.3758,),
    num_classes=10,
    class_names=tuple("0123456789"),
)
"""The input that both networks expect."""


def teacher() -> Network:
    """The trained residual network, loaded like a user's network."""
    return _loaded(NETWORK, WEIGHTS)


def transformer_teacher() -> Network:
    """The trained transformer, loaded in the same way."""
    return _loaded(TRANSFORMER, TRANSFORMER_WEIGHTS)


def _loaded(file: Path, weights: Path) -> Network:
    from dreamquant.networks.load import load_network

    network = load_network(
        f"{file}:digits",
        weights=weights,
        shape=INPUT.shape,
        mean=INPUT.mean,
        std=INPUT.std,
    )
    return replace(network, input=INPUT)
