"""A method of one's own, with a loss, a tap and images of its own, in one file.

    dreamquant quantize … --method examples/my_method.py:mine
    dreamquant quantize … --method examples/my_method.py:generated

``mine`` draws noise images once and trains the student on them; ``generated`` trains a generator
with a loss that no paper has. Nothing has to be registered.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dreamquant import Method
from dreamquant.methods.method import Paper, Preset
from dreamquant.methods.quick import QUICK
from dreamquant.networks.taps import Collected, Tap
from dreamquant.recovery.train import Train
from dreamquant.synthesis.generator import Generator
from dreamquant.synthesis.source import Images, Source
from dreamquant.terms.classes import TeacherCrossEntropy
from dreamquant.terms.contract import Step, Term, Terms
from dreamquant.terms.distillation import DifferenceEntropy
from dreamquant.terms.statistics import BatchNormStatistics
from dreamquant.training.batch import Batch, Request
from dreamquant.training.bench import Bench
from dreamquant.training.losses import Losses
from dreamquant.training.phase import Phase

PAPER = Paper("An Example", "nowhere, 2026", "Nobody", confirmed="nothing", ours="all of it")


# A tap: something that a forward pass computes inside a network.


@dataclass(frozen=True)
class FirstMap(Tap[Tensor]):
    """What leaves the first convolution (B, F, h, w)."""

    def require(self, network: nn.Module, example: Tensor) -> None:
        """Every network that can be quantized here has a convolution."""

    @contextmanager
    def watch(self, network: nn.Module) -> Iterator[Collected]:
        """Collect it by a hook."""
        first = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
        collected: list[Tensor] = []
        handle = first.register_forward_hook(lambda _, inputs, output: collected.append(output))
        try:
            yield lambda: tuple(collected)
        finally:
            handle.remove()

    def value(self, tensors: Sequence[Tensor]) -> Tensor:
        """The map."""
        return tensors[0].float()


# A term: a loss that sees the step and nothing else.


@dataclass(frozen=True)
class Smooth(Term):
    """Mean absolute difference of neighbours in the teacher's first map."""

    formula = "E |f(u+1, v) - f(u, v)| + E |f(u, v+1) - f(u, v)|"
    teacher_taps = (FirstMap(),)

    def __call__(self, step: Step) -> Tensor:
        """The loss, a scalar."""
        found = step.teacher[FirstMap()]
        return found.diff(dim=2).abs().mean() + found.diff(dim=3).abs().mean()


generated = Method(
    name="generated",
    summary="cross-entropy, statistics and smoothness for the generator, matched logits",
    paper=PAPER,
    images=Generator([TeacherCrossEntropy(), 0.1 * BatchNormStatistics(), 0.01 * Smooth()]),
    recovery=(Train([DifferenceEntropy(temperature=20)]),),
    presets={"quick": Preset(images=QUICK.images, recovery={"Train": QUICK.recovery["Train"]})},
)


# A source: where images come from. Here a pool that is drawn once and does not learn.


@dataclass(frozen=True)
class NoiseImages(Source):
    """Gaussian noise, labelled by the teacher.

    Attributes:
        count: images.
    """

    count: int = 64
    terms: Terms = ()

    def stretched(self, ratio: float) -> NoiseImages:
        """The same: it takes no steps."""
        return self

    def open(self, bench: Bench, updates: int) -> Images:
        """The pool of a run."""
        return _Pool(bench, self.count)


class _Pool(Images):
    def __init__(self, bench: Bench, count: int) -> None:
        super().__init__(bench)
        random = torch.Generator(bench.device).manual_seed(bench.seed)
        shape = (count, *bench.input.shape)
        self.images = torch.randn(shape, generator=random, device=bench.device)
        with torch.no_grad():
            self.labels = bench.teacher(self.images).argmax(1)

    def phases(self) -> Iterator[Phase]:
        """The student's activation ranges are taken from the pool."""
        yield _Ranges(self)

    def ask(self, size: int, random: torch.Generator, targets: Tensor | None = None) -> Request:
        """Rows of the pool."""
        rows = torch.randint(len(self.images), (size,), generator=random, device=random.device)
        return Request(self.labels[rows], rows)

    def make(self, request: Request) -> Batch:
        """The images of these rows."""
        return Batch(self.images[request.latent], request.targets, request.latent)


class _Ranges(Phase):
    name = "activation ranges are set"
    total = 1

    def __init__(self, pool: _Pool) -> None:
        super().__init__()
        self.pool, self.images = pool, len(pool.images)

    def step(self) -> Losses:
        student = self.pool.bench.student
        student.observe(True)
        with torch.no_grad():
            student(self.pool.images)
        student.observe(False)
        return {}


mine = Method(
    name="mine",
    summary="noise images, matched logits",
    paper=PAPER,
    images=NoiseImages(),
    recovery=(Train([DifferenceEntropy(temperature=20)], iterations=200),),
    presets={"quick": Preset(scheme={"ranges": "learned"}, recovery={"Train": {"lr": 1e-4}})},
)
