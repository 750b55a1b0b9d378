"""Train the demo network; write its weights and held-out images into ``dreamquant.networks.demo``.

Run ``python tools/train_digits.py`` with the extra ``train-demo`` installed: under two minutes on
one CPU thread, and the same files every time on the same machine and torch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn import functional as F

from dreamquant.networks.demo import HELD_OUT, INPUT, WEIGHTS
from dreamquant.networks.demo.network import digits
from dreamquant.results.files import write_tensors

SEED = 0
HELD_OUT_IMAGES = 597
EPOCHS = 80
BATCH = 60
PEAK_RATE = 0.1
WEIGHT_DECAY = 1e-4


@dataclass(frozen=True)
class Split:
    """Images (N, 8, 8, 1) and labels (N,), both uint8."""

    images: NDArray[np.uint8]
    labels: NDArray[np.uint8]


def load_splits() -> tuple[Split, Split]:
    """Return the training and the held-out split, stratified by class."""
    bunch = load_digits()
    images = np.round(bunch.images * 255 / 16).astype(np.uint8)[..., None]
    labels = bunch.target.astype(np.uint8)
    train, held_out = train_test_split(
        np.arange(len(labels)), test_size=HELD_OUT_IMAGES, stratify=labels, random_state=SEED
    )
    return Split(images[train], labels[train]), Split(images[held_out], labels[held_out])


def check_input_spec(train: Split) -> None:
    """Stop where the network's mean and std are not those of the training split."""
    pixels = train.images / 255
    measured = (pixels.mean(), pixels.std())
    if not np.allclose(measured, (*INPUT.mean, *INPUT.std), atol=5e-5):
        mean, std = measured
        raise SystemExit(f"give dreamquant.networks.demo.INPUT mean {mean:.4f}, std {std:.4f}")


def to_tensors(split: Split) -> tuple[Tensor, Tensor]:
    """Return normalised images (N, 1, 8, 8) and labels (N,) as the network and loss want them."""
    pixels = torch.from_numpy(split.images).permute(0, 3, 1, 2).float() / 255
    return (pixels - INPUT.mean[0]) / INPUT.std[0], torch.from_numpy(split.labels).long()


def shift(images: Tensor, generator: torch.Generator) -> Tensor:
    """Move each image (N, 1, 8, 8) by -1, 0 or 1 pixels both ways, filling with black."""
    black = -INPUT.mean[0] / INPUT.std[0]
    size = images.shape[-1]
    padded = F.pad(images, (1, 1, 1, 1), value=black)
    offsets = torch.randint(3, (2, len(images), 1), generator=generator)
    rows, columns = offsets + torch.arange(size)
    image = torch.arange(len(images))[:, None, None]
    return padded[image, 0, rows[:, :, None], columns[:, None, :]][:, None]


def train_network(images: Tensor, labels: Tensor) -> nn.Module:
    """Train on normalised images (N, 1, 8, 8) and labels (N,); return the network in eval mode."""
    torch.manual_seed(SEED)
    generator = torch.Generator().manual_seed(SEED)
    network = digits()
    steps = EPOCHS * (len(images) // BATCH)
    optimizer = torch.optim.SGD(
        network.parameters(), PEAK_RATE, momentum=0.9, weight_decay=WEIGHT_DECAY, nesterov=True
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for epoch in range(EPOCHS):
        for batch in torch.randperm(len(images), generator=generator).view(-1, BATCH):
            loss = F.cross_entropy(network(shift(images[batch], generator)), labels[batch])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
        if epoch % 10 == 9:
            print(f"epoch {epoch + 1:3d}  last loss {loss.item():.4f}")
    return network.eval()


@torch.no_grad()
def accuracy(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return top-1 accuracy in [0, 1]."""
    return float((network(images).argmax(1) == labels).float().mean())


def main() -> None:
    """Train, print the held-out accuracy and write both files."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    train, held_out = load_splits()
    check_input_spec(train)
    network = train_network(*to_tensors(train))
    print(f"held-out accuracy {accuracy(network, *to_tensors(held_out)):.2%}")
    write_tensors(WEIGHTS, network.state_dict(), metadata={})
    np.savez_compressed(HELD_OUT, images=held_out.images, labels=held_out.labels)


if __name__ == "__main__":
    main()
