"""Images from latents and a new small generator for each batch (GENIE, Jeon et al., CVPR 2023)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from dreamquant.networks.pixels import FeatureScale
from dreamquant.networks.swing import swinging
from dreamquant.synthesis.generator_networks import LatentGenerator
from dreamquant.synthesis.pool import Pool
from dreamquant.synthesis.source import Source, require_any_output, seen_classes
from dreamquant.synthesis.targets import Nothing, OneHot, Targets
from dreamquant.terms.contract import Terms, weighted
from dreamquant.training.batch import Batch
from dreamquant.training.bench import Bench
from dreamquant.training.decay import Cosine, Decay, Exponential, stretch
from dreamquant.training.losses import Losses, total
from dreamquant.training.optimizers import Adam
from dreamquant.training.phase import Phase
from dreamquant.training.step import Players, Step
from dreamquant.training.watched import Watched

_ONE_HOT, _COSINE, _EXPONENTIAL = OneHot(), Cosine(), Exponential(0.95, every=100)
_BETAS = (0.9, 0.999)


@dataclass(frozen=True)
class Latents(Source):
    """A pool; for each batch, the images' latents and a generator of their own are optimised.

    The generator acts as a prior, which optimised pixels lack. Its last layer normalises each
    channel over the batch. The teacher's strided convolutions are swing convolutions, see
    :mod:`dreamquant.networks.swing`.

    Attributes:
        terms: the losses that the images minimise; they read only the teacher.
        size: images of the pool.
        batch: number of images that are optimised together, at least 2.
        steps: steps of Adam on each batch.
        latent: length of an image's latent.
        widths: channels of the generator at a quarter and at half of the image's size.
        lr_latent: learning rate of the latents.
        lr_generator: learning rate of the generator's weights.
        decay_latent: decay of the latents' learning rate over the steps of a batch.
        decay_generator: decay of the generator's learning rate over the steps of a batch.
        targets: given to terms that read them; the pool's own targets are the teacher's classes.
    """

    terms: Terms
    size: int = 1024
    batch: int = 128
    steps: int = 4000
    latent: int = 256
    widths: tuple[int, int] = (128, 64)
    lr_latent: float = 0.1
    lr_generator: float = 0.01
    decay_latent: Decay = _COSINE
    decay_generator: Decay = _EXPONENTIAL
    targets: Targets = _ONE_HOT

    @property
    def kept(self) -> int:
        """The number of images of the pool."""
        return self.size

    @property
    def iterations(self) -> int:
        """Steps on all batches."""
        return self.steps * -(-self.size // self.batch)

    def for_any_output(self) -> Latents:
        """The same, where no term needs classes; images then have no targets.

        Raises:
            MethodError: a term needs classes.
        """
        require_any_output(self.terms, "its images")
        return replace(self, targets=Nothing())

    def stretched(self, ratio: float) -> Latents:
        """The same with ``ratio`` times as many steps on each batch."""
        return replace(
            self,
            steps=max(stretch(self.steps, ratio), 1),
            decay_latent=self.decay_latent.stretched(ratio),
            decay_generator=self.decay_generator.stretched(ratio),
        )

    def open(self, bench: Bench, updates: int) -> LatentPool:
        """An empty pool that its phases fill."""
        return LatentPool(self, bench)


class LatentPool(Pool):
    """A pool of images from latents.

    Args:
        source: the numbers of the optimization.
        bench: networks, random generators and device of the run.
    """

    def __init__(self, source: Latents, bench: Bench) -> None:
        super().__init__(bench, source.size)
        self.source = source

    def phases(self) -> Iterator[Phase]:
        """One phase for each batch."""
        source = self.source
        for first in range(0, source.size, source.batch):
            yield Distilling(self, first, min(source.batch, source.size - first))


class Distilling(Phase):
    """One batch of the pool: latents and a new generator are optimised together.

    Args:
        pool: receives the images.
        first: number of its first image.
        count: number of images.
    """

    stretches = True

    def __init__(self, pool: LatentPool, first: int, count: int) -> None:
        super().__init__()
        self.pool, self.source, self.bench = pool, pool.source, pool.bench
        self.name = f"distilling images {first + 1} to {first + count}"
        self.total, self.images = self.source.steps, count
        self.terms = weighted(self.source.terms)
        self._work: _Work | None = None

    def step(self) -> Losses:
        """One step of Adam on the latents and the generator."""
        work = self._begun()
        losses: Losses = {}
        with self.bench.autocast():
            batch = Batch(work.made(), work.targets, work.latent)
            step = Step(batch, work.players, self.bench.rng, student_learns=False)
            with swinging(self.bench.teacher, self.bench.rng.choice):
                loss = total(self.terms, step, losses, "images", 1)
        work.follow(loss, self.done, self.total)
        if self.done + 1 == self.total:
            self.leave()
        return losses

    @torch.no_grad()
    def leave(self) -> None:
        """The pool keeps the images as they are now, and what the teacher sees in them."""
        work = self._begun()
        images = work.made()
        self.pool.add(images, seen_classes(self.bench, images))
        self._work = None

    def _begun(self) -> _Work:
        if self._work is None:
            spec, rng = self.bench.input, self.bench.rng
            targets = self.source.targets.sample(self.images, spec.num_classes, rng.asked)
            shape = (self.images, self.source.latent)
            latent = torch.randn(shape, generator=rng.asked, device=self.bench.device)
            seed = int(torch.randint(2**31, (), generator=rng.choice))
            self._work = _Work(self.source, self.bench, latent, targets, seed)
        return self._work

    def state_dict(self) -> dict[str, Any]:
        """Latents, generator and optimizers."""
        return {} if self._work is None else self._work.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a state from :meth:`state_dict`."""
        if state:
            # Draws nothing: the random generators were saved after the draws of this batch.
            latent, targets = (state[name].to(self.bench.device) for name in ("latent", "targets"))
            self._work = _Work(self.source, self.bench, latent, targets, seed=0)
            self._work.load_state_dict(state)


class _Work:
    """The latents and the generator of one batch, with their optimizers.

    Args:
        source: the numbers of the optimization.
        bench: networks, random generators and device of the run.
        latent: (B, latent), the first values.
        targets: (B,) or (B, classes).
        seed: of the generator's weights.
    """

    def __init__(
        self, source: Latents, bench: Bench, latent: Tensor, targets: Tensor, seed: int
    ) -> None:
        self.source, self.targets = source, targets
        self.latent = latent.clone().requires_grad_()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            generator = LatentGenerator(bench.input.image, source.latent, source.widths)
        self.generator = generator.to(bench.device)
        self.scale = FeatureScale(bench.input, bench.device)
        self.weights = list(self.generator.parameters())
        # A new Watched: the compiled graphs of the run do not contain the swing hooks.
        taps = source.teacher_taps
        teacher = Watched(bench.teacher, bench.example(), taps)
        self.players = Players(teacher, bench.players.student)
        self.optimizers = (
            Adam([self.latent], betas=_BETAS),
            Adam(self.weights, betas=_BETAS),
        )

    def made(self) -> Tensor:
        """The images, with a graph to the latents and the generator."""
        return self.scale.given(self.generator(self.latent))

    def follow(self, loss: Tensor, done: int, total: int) -> None:
        """One step against the gradient of the loss."""
        learned, source = [self.latent, *self.weights], self.source
        for parameter, gradient in zip(learned, torch.autograd.grad(loss, learned), strict=True):
            parameter.grad = gradient
        latents, weights = self.optimizers
        latents.step(source.lr_latent * source.decay_latent.factor(done, total))
        weights.step(source.lr_generator * source.decay_generator.factor(done, total))

    def state_dict(self) -> dict[str, Any]:
        return {
            "latent": self.latent.detach(),
            "targets": self.targets,
            "generator": self.generator.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.generator.load_state_dict(state["generator"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
