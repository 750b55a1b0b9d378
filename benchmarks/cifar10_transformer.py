"""A small image transformer for CIFAR-10, and the command that trained its weights.

    python benchmarks/cifar10_transformer.py [--data DIR]

It learns from the 20,000 training images of the project's data on one CPU thread, and is measured
on all test images after the last epoch. A run that was stopped continues after its last complete
epoch. Weights (float16) and record lie in ``benchmarks/weights/``.
"""

from __future__ import annotations

import argparse
import io
import platform
import tarfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.lr_scheduler import OneCycleLR

from dreamquant import Network, load_network
from dreamquant.machine import keep_freed_memory, processor
from dreamquant.networks.demo.transformer import Block
from dreamquant.results.files import sha256_file, write_json, write_tensors
from grid import DATA, ROOT

WEIGHTS = Path(__file__).parent / "weights" / "cifar10_transformer.safetensors"
RECORD = WEIGHTS.with_suffix(".json")
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
WIDTH, DEPTH, HEADS, TOKENS = 96, 4, 4, 64

SEED = 0
EPOCHS = 24
BATCH = 64
PEAK_RATE = 2e-3
WEIGHT_DECAY = 0.05
RISE = 0.1  # fraction of the steps in which the rate climbs
SMOOTHING = 0.1
PADDING = 4  # pixels by which an image is moved at most
# Half of the tokens suffice at first: an epoch takes less time, and the network overfits less.
HALF = 21  # epochs


class CifarTransformer(nn.Module):
    """Three convolutions make 8 x 8 tokens; pre-norm blocks; the mean of the tokens is classified.

    There is no batch norm.
    """

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Sequential(
            nn.Conv2d(3, 32, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(64, WIDTH, 3, stride=2, padding=1),
        )
        self.position = nn.Parameter(0.02 * torch.randn(1, TOKENS, WIDTH))
        self.blocks = nn.Sequential(*(Block(WIDTH, HEADS, 2 * WIDTH) for _ in range(DEPTH)))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, 10)

    def tokens(self, images: Tensor) -> Tensor:
        """Map normalised images (N, 3, 32, 32) to tokens (N, 64, width)."""
        return self.embed(images).flatten(2).transpose(1, 2) + self.position  # type: ignore[no-any-return]

    def classify(self, tokens: Tensor) -> Tensor:
        """Map any number of tokens (N, T, width) to logits (N, 10)."""
        return self.head(self.norm(self.blocks(tokens)).mean(1))  # type: ignore[no-any-return]

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images (N, 3, 32, 32) to logits (N, 10)."""
        return self.classify(self.tokens(images))


def make() -> nn.Module:
    """The network with random weights."""
    return CifarTransformer()


def teacher() -> Network:
    """The trained network."""
    return load_network(f"{__file__}:make", weights=WEIGHTS, shape=(3, 32, 32), mean=MEAN, std=STD)


def training_split(data: Path) -> tuple[Tensor, Tensor]:
    """Images (20000, 3, 32, 32) of bytes and labels (20000,)."""
    with tarfile.open(data / "cifar10" / "train20k_lossless.tar") as archive:
        sheets = sorted(name for name in archive.getnames() if name.endswith(".webp"))
        tiles = np.concatenate([_tiles(archive, name) for name in sheets])
        labels = np.load(_member(archive, "labels.npy"))
    return _planar(tiles[: len(labels)]), torch.from_numpy(labels).long()


def test_split(data: Path) -> tuple[Tensor, Tensor]:
    """Images (9874, 3, 32, 32) of bytes and labels (9874,)."""
    with np.load(data / "cifar10" / "test_lossless.npz") as arrays:
        return _planar(arrays["images"]), torch.from_numpy(arrays["labels"]).long()


def _tiles(archive: tarfile.TarFile, name: str) -> np.ndarray:
    """The images (N, 32, 32, 3) of a sheet, which has 40 in a row."""
    sheet = np.asarray(Image.open(_member(archive, name)).convert("RGB"))
    return sheet.reshape(-1, 32, 40, 32, 3).swapaxes(1, 2).reshape(-1, 32, 32, 3)


def _member(archive: tarfile.TarFile, name: str) -> io.BytesIO:
    member = archive.extractfile(name)
    assert member is not None
    return io.BytesIO(member.read())


def _planar(images: np.ndarray) -> Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()


def normalised(images: Tensor) -> Tensor:
    """Bytes as the network expects them."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return (images / 255 - mean) / std


def varied(images: Tensor) -> Tensor:
    """Move each image by some pixels, mirror half of them, and vary contrast and brightness."""
    count, _, size, _ = images.shape
    padded = F.pad(normalised(images), (PADDING,) * 4, mode="reflect")
    offsets = torch.randint(2 * PADDING + 1, (2, count, 1))
    rows, columns = offsets + torch.arange(size)
    columns = torch.where(torch.rand(count, 1) < 0.5, columns.flip(1), columns)
    image = torch.arange(count)[:, None, None]
    moved = padded[image, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    contrast, brightness = 0.2 * torch.randn(2, count, 1, 1, 1)
    out: Tensor = moved * (1 + contrast) + brightness
    return out


def some(tokens: Tensor, count: int) -> Tensor:
    """Tokens (N, count, width): of each image others, by chance."""
    chosen = torch.rand(tokens.shape[:2]).argsort(1)[:, :count]
    return tokens.gather(1, chosen[:, :, None].expand(-1, -1, tokens.shape[2]))


class Training:
    """The network on its way, kept in a file after each epoch.

    Args:
        images: bytes (N, 3, 32, 32).
        labels: (N,).
        kept: the file.
    """

    def __init__(self, images: Tensor, labels: Tensor, kept: Path) -> None:
        self.images, self.labels, self.kept = images, labels, kept
        torch.manual_seed(SEED)
        self.network = CifarTransformer()
        optimizers = _optimizers(self.network)
        steps = EPOCHS * (len(images) // BATCH)
        schedules = [
            OneCycleLR(each, PEAK_RATE, steps, pct_start=RISE, cycle_momentum=False)
            for each in optimizers
        ]
        self.stepping: list[Optimizer | OneCycleLR] = [*optimizers, *schedules]
        self.epoch, self.cpu_seconds = 0, 0.0
        if kept.exists():
            self._restore(torch.load(kept))

    def run(self) -> None:
        """Train to the end."""
        while self.epoch < EPOCHS:
            before = time.process_time()
            loss = self._run_epoch()
            self.epoch += 1
            self.cpu_seconds += time.process_time() - before
            self._save()
            print(f"epoch {self.epoch}: loss {loss:.3f}, {self.cpu_seconds:.0f} CPU s", flush=True)

    def _run_epoch(self) -> float:
        """Mean loss; all chance is that of the epoch, so that a continued run takes the same."""
        torch.manual_seed(SEED + 1 + self.epoch)
        self.network.train()
        count = TOKENS // 2 if self.epoch < HALF else TOKENS
        losses = []
        order = torch.randperm(len(self.images))
        for batch in order[: len(order) // BATCH * BATCH].view(-1, BATCH):
            tokens = some(self.network.tokens(varied(self.images[batch])), count)
            logits = self.network.classify(tokens)
            loss = F.cross_entropy(logits, self.labels[batch], label_smoothing=SMOOTHING)
            self.network.zero_grad()
            torch.autograd.backward(loss)
            for each in self.stepping:
                each.step()
            losses.append(loss.detach())
        return float(torch.stack(losses).mean())

    def _save(self) -> None:
        state = {
            "network": self.network.state_dict(),
            "stepping": [each.state_dict() for each in self.stepping],
            "epoch": self.epoch,
            "cpu_seconds": self.cpu_seconds,
        }
        self.kept.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.kept.with_suffix(".part")
        torch.save(state, temporary)
        temporary.replace(self.kept)

    def _restore(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        for each, its in zip(self.stepping, state["stepping"], strict=True):
            each.load_state_dict(its)
        self.epoch, self.cpu_seconds = state["epoch"], state["cpu_seconds"]


def _optimizers(network: CifarTransformer) -> tuple[Optimizer, ...]:
    """Muon for the matrices of the blocks, AdamW for the rest.

    After four epochs, 53.5 % of the first 1,000 test images; 49.1 by AdamW alone at a rate of
    1.5e-3.
    """
    matrices = [value for value in network.blocks.parameters() if value.dim() == 2]
    known = {id(value) for value in matrices}
    rest = [value for value in network.parameters() if id(value) not in known]
    return (
        torch.optim.Muon(
            matrices, PEAK_RATE, weight_decay=WEIGHT_DECAY, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(rest, PEAK_RATE, weight_decay=WEIGHT_DECAY, fused=True),
    )


def accuracy(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Percentage of images (N, 3, 32, 32) of bytes that are classified as labelled."""
    network.eval()
    with torch.inference_mode():
        parts = [images[start : start + 200] for start in range(0, len(images), 200)]
        found = torch.cat([network(normalised(part)).argmax(1) for part in parts])
    return 100 * float((found == labels).float().mean())


def main() -> None:
    """Train, write the weights, and put on record how accurate they are."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA, help="folder that has cifar10/")
    data = parser.parse_args().data
    training = Training(*training_split(data), ROOT / "out" / "cifar10-transformer.pt")
    training.run()
    half = {name: value.half() for name, value in training.network.state_dict().items()}
    write_tensors(WEIGHTS, half, metadata={})
    training.network.load_state_dict(half)  # what is measured is what is kept
    images, labels = test_split(data)
    record = {
        "top1": round(accuracy(training.network, images, labels), 2),
        "n": len(labels),
        "sha256": sha256_file(WEIGHTS),
        "parameters": sum(value.numel() for value in half.values()),
        "training_images": len(training.images),
        "epochs": EPOCHS,
        "seed": SEED,
        "cpu_seconds": round(training.cpu_seconds),
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }
    write_json(RECORD, record)
    print(record)


if __name__ == "__main__":
    keep_freed_memory()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    main()
