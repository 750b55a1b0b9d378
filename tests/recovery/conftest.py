"""Tiny networks with residual sums, and benches on which parts of recovery work."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dreamquant.networks.spec import InputSpec
from dreamquant.quantization.convert import quantize_network
from dreamquant.quantization.scheme import Bits, Scheme
from dreamquant.synthesis.source import Images
from dreamquant.training.batch import Batch, Request
from dreamquant.training.bench import Bench
from dreamquant.training.devices import accelerator_for
from dreamquant.training.rng import Rng
from dreamquant.training.step import Players
from dreamquant.training.watched import Watched

SPEC = InputSpec(shape=(3, 8, 8), mean=(0.5,) * 3, std=(0.25,) * 3, num_classes=5)


class Block(nn.Module):
    """A residual block; one without batch norms has biases."""

    def __init__(self, channels, *, norms=True, in_place=False):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=not norms)
        self.bn1 = nn.BatchNorm2d(channels) if norms else nn.Identity()
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=not norms)
        self.bn2 = nn.BatchNorm2d(channels) if norms else nn.Identity()
        self.in_place = in_place

    def forward(self, x):
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.in_place:
            out += x
            return F.relu(out)
        return F.relu(out + x)


class Residual(nn.Module):
    """A stem, a block, a depthwise layer and a classifier."""

    def __init__(self, **options):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.block = Block(6, **options)
        self.depthwise = nn.Conv2d(6, 6, 3, groups=6)
        self.head = nn.Linear(6, SPEC.num_classes)

    def forward(self, x):
        x = self.block(F.relu(self.stem(x)))
        return self.head(F.relu(self.depthwise(x)).mean((2, 3)))


def residual_network(seed=0, **options):
    """Its batch norms hold statistics as if it had been trained."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = Residual(**options)
        for norm in network.modules():
            if isinstance(norm, nn.BatchNorm2d):
                nn.init.normal_(norm.running_mean, std=0.3)
                nn.init.uniform_(norm.running_var, 0.2, 1.5)
                nn.init.uniform_(norm.weight, 0.7, 1.3)
                nn.init.normal_(norm.bias, std=0.3)
    return network.eval().requires_grad_(False)


class GivenImages(Images):
    """A pool of images that are there; rows are drawn with replacement."""

    def __init__(self, bench, pool):
        super().__init__(bench)
        self.pool = pool

    def ask(self, size, random, targets=None):
        rows = torch.randint(len(self.pool), (size,), generator=random)
        return Request(torch.zeros_like(rows), rows)

    def make(self, request):
        return Batch(self.pool[request.latent], request.targets, request.latent)


def bench_of(network, bits="w3a3", seed=0, spec=SPEC, **scheme):
    example = torch.zeros(2, *spec.shape)
    student, _ = quantize_network(network, Scheme(Bits.parse(bits), **scheme), example)
    return Bench(
        prepared=network,
        student=student,
        players=Players(Watched(network, example, ()), Watched(student, example, ())),
        input=spec,
        rng=Rng.seeded(seed, torch.device("cpu")),
        seed=seed,
        accelerator=accelerator_for("cpu", "32"),
    )


def pool_of(count=48, seed=1):
    """Smooth random images."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(count, 3, 4, 4, generator=generator)
    return F.interpolate(noise, size=8, mode="bilinear")


@pytest.fixture
def make_network():
    return residual_network


@pytest.fixture
def make_bench():
    return bench_of


@pytest.fixture
def pool():
    return pool_of()


@pytest.fixture
def given_images():
    return GivenImages


@pytest.fixture
def do():
    """Do all steps of a part's phases."""

    def run(part, bench, images):
        for phase in part.phases(bench, images):
            while not phase.over:
                phase.step()
                phase.done += 1

    return run
