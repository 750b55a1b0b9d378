"""Images whose pixels are optimised (ZeroQ, Cai et al., CVPR 2020, and its successors)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from dreamquant.errors import MethodError
from dreamquant.networks.pixels import FeatureScale
from dreamquant.synthesis.pool import Pool
from dreamquant.synthesis.procedural import Kind, WhiteNoise, drawn_inputs, pixel_moments
from dreamquant.synthesis.source import Source, require_any_output
from dreamquant.synthesis.targets import Condition, Nothing, OneHot, Targets
from dreamquant.synthesis.token_stopping import Moved, Tokens, TokenStopping, find_place
from dreamquant.terms.contract import Terms, weighted
from dreamquant.training.batch import Batch
from dreamquant.training.bench import Bench
from dreamquant.training.decay import Cosine, Decay, stretch
from dreamquant.training.losses import Losses, total
from dreamquant.training.optimizers import Adam
from dreamquant.training.phase import Phase
from dreamquant.training.step import Players, Step
from dreamquant.training.watched import Watched

_NOISE, _ONE_HOT, _COSINE = WhiteNoise(), OneHot(), Cosine()


@dataclass(frozen=True)
class Pixels(Source):
    """A pool of images; each batch is optimised on its own.

    Attributes:
        terms: the losses that the images minimise; they read only the teacher.
        size: images of the pool.
        batch: number of images that are optimised together.
        steps: steps of Adam on each batch.
        lr: learning rate of Adam, in units of the normalised image.
        decay: decay of the learning rate over the steps of a batch.
        betas: of Adam.
        start: the images before the first step.
        shift: largest random shift of the batch in each step, in pixels; pixels that leave the
            image enter at the other side.
        flip: whether the batch is mirrored at random.
        clamp: whether values stay in the range of pixels, where the inputs are pixels.
        targets: targets of the images.
        conditions: further conditions of the images; the pool does not store them.
        stopping: when patches with little attention are stopped, which makes steps of a
            transformer quicker; ``None`` optimises all of them to the end.
    """

    terms: Terms
    size: int = 256
    batch: int = 64
    steps: int = 500
    lr: float = 0.1
    decay: Decay = _COSINE
    betas: tuple[float, float] = (0.9, 0.999)
    start: Kind = _NOISE
    shift: int = 0
    flip: bool = False
    clamp: bool = False
    targets: Targets = _ONE_HOT
    conditions: tuple[Condition, ...] = ()
    stopping: TokenStopping | None = None

    def __post_init__(self) -> None:
        """Refuse terms that compare the stopped patches too."""
        fixed = [w.name for w in weighted(self.terms) if w.term.every_token or w.term.student_taps]
        if self.stopping is not None and fixed:
            raise MethodError(
                f"{', '.join(fixed)} needs every patch of an image, so none can be stopped",
                where="--method",
                remedy="leave +smi out, or join it to psaq_vit or mimiq",
            )

    @property
    def kept(self) -> int:
        """The number of images of the pool."""
        return self.size

    @property
    def iterations(self) -> int:
        """Steps on all batches."""
        return self.steps * -(-self.size // self.batch)

    def for_any_output(self) -> Pixels:
        """The same without the terms that need classes, if others are left; images have no targets.

        Raises:
            MethodError: no term is left.
        """
        left = [w for w in weighted(self.terms) if w.term.any_output]
        if not left:
            require_any_output(self.terms, "its images")
        return replace(self, terms=left, targets=Nothing())

    def stretched(self, ratio: float) -> Pixels:
        """The same with ``ratio`` times as many steps on each batch."""
        decay = self.decay.stretched(ratio)
        return replace(self, steps=max(stretch(self.steps, ratio), 1), decay=decay)

    def open(self, bench: Bench, updates: int) -> PixelPool:
        """An empty pool that its phases fill."""
        return PixelPool(self, bench)


class PixelPool(Pool):
    """A pool of optimised images.

    Args:
        source: the numbers of the optimization.
        bench: networks, random generators and device of the run.
    """

    def __init__(self, source: Pixels, bench: Bench) -> None:
        super().__init__(bench, source.size)
        self.source = source
        self.players, self.place = bench.players, None
        if source.stopping is not None:
            moved = source.shift > 0 or source.flip
            self.place = find_place(bench, moved=moved)
            # Compiled graphs of the run see all patches.
            teacher = Watched(bench.teacher, bench.example(), source.teacher_taps)
            self.players = Players(teacher, bench.players.student)

    def phases(self) -> Iterator[Phase]:
        """One phase for each batch."""
        source = self.source
        for first in range(0, source.size, source.batch):
            yield Dreaming(self, source, first, min(source.batch, source.size - first))

    def again(self, terms: Terms, steps: int) -> Iterator[Phase]:
        """One phase for each batch, in which its images are optimised further.

        Args:
            terms: the losses that they minimise; these may read the student.
            steps: steps of Adam on each batch.
        """
        source = replace(self.source, terms=terms, steps=steps, stopping=None)
        for first in range(0, source.size, source.batch):
            yield Redreaming(self, source, first, min(source.batch, source.size - first))


class Dreaming(Phase):
    """Optimises one batch of the pool.

    Args:
        pool: receives the images.
        source: the numbers of the optimization.
        first: number of its first image.
        count: number of images.
    """

    kind = "optimising images"
    stretches = in_training_precision = True

    def __init__(self, pool: PixelPool, source: Pixels, first: int, count: int) -> None:
        super().__init__()
        self.pool, self.source, self.bench, self.first = pool, source, pool.bench, first
        self.name = f"dreaming images {first + 1} to {first + count}"
        self.total, self.first, self.images = self.source.steps, first, count
        self.terms = weighted(self.source.terms)
        self.pixels, self.targets = torch.empty(0), torch.empty(0)
        self.conditions: dict[str, Tensor] = {}
        self.optimizer: Adam | None = None
        self.tokens = (
            Tokens(source.stopping, pool.place, self.bench.teacher)
            if source.stopping and pool.place
            else None
        )
        self.scale = FeatureScale(self.bench.input, self.bench.device)

    def step(self) -> Losses:
        """One step of Adam on all images of the batch."""
        if self.optimizer is None:
            self._start()
        assert self.optimizer is not None
        losses: Losses = {}
        self.pixels.grad = None
        seen, moved = self._seen()
        with self.bench.autocast(), self._remaining(moved):
            batch = Batch(seen, self.targets, self.targets, self.conditions)
            step = Step(batch, self.pool.players, self.bench.rng, student_learns=False)
            loss = total(self.terms, step, losses, "images", 1)
        (self.pixels.grad,) = torch.autograd.grad(loss, [self.pixels])
        rate = self.source.lr * self.source.decay.factor(self.done, self.total)
        self.optimizer.step(rate)
        self._clamp()
        if self.done + 1 == self.total:
            self.leave()
        return losses

    def leave(self) -> None:
        """The pool keeps the images as they are now."""
        if self.optimizer is None:
            self._start()
        self.pool.add(self._inputs(self.pixels.detach()), self.targets)

    def _start(self) -> None:
        inputs, targets = self._drawn()
        random = self.bench.rng.asked
        asked = {c.name: c.sample(self.images, random) for c in self.source.conditions}
        self._begin(self.scale.removed(inputs), targets, asked)

    def _drawn(self) -> tuple[Tensor, Tensor]:
        spec, rng = self.bench.input, self.bench.rng
        if isinstance(self.source.start, WhiteNoise):
            pixels = self.source.start.draw(self.images, spec.plane, rng.asked)
            pixels = self._inputs(pixels.reshape(self.images, *spec.shape))
        else:
            pixels = drawn_inputs(self.source.start, self.images, spec, rng.asked)
        return pixels, self.source.targets.sample(self.images, spec.num_classes, rng.asked)

    def _begin(self, pixels: Tensor, targets: Tensor, asked: Mapping[str, Tensor]) -> None:
        # Convolutions keep the memory layout of their input, and are fastest in channels-last.
        layout = torch.channels_last if pixels.dim() == 4 else torch.contiguous_format
        self.pixels = pixels.contiguous(memory_format=layout).requires_grad_()
        self.targets, self.conditions = targets, dict(asked)
        self.optimizer = Adam([self.pixels], betas=self.source.betas)

    def _remaining(self, moved: Moved) -> AbstractContextManager[None]:
        """Let the teacher see the patches that are not stopped, after some are where it is time."""
        if self.tokens is None:
            return nullcontext()
        if self.tokens.stopping.due(self.done, self.total):
            self.tokens.stop(self._inputs(self.pixels.detach()))
        return self.tokens.remaining(moved)

    def _seen(self) -> tuple[Tensor, Moved]:
        """The batch as the teacher sees it in this step, and how it was moved."""
        pixels, choice, reach = self.pixels, self.bench.rng.choice, self.source.shift
        # A spectrum that is shifted or mirrored is another sound.
        if self.bench.input.features:
            return self._inputs(pixels), Moved()
        down = right = 0
        if reach:
            down, right = torch.randint(-reach, reach + 1, (2,), generator=choice).tolist()
            pixels = pixels.roll((down, right), (-2, -1))
        mirrored = self.source.flip and bool(torch.rand((), generator=choice) < 0.5)
        return pixels.flip(-1) if mirrored else pixels, Moved(down, right, mirrored)

    def _inputs(self, pixels: Tensor) -> Tensor:
        """What the network takes: features are optimised in units of their own scale."""
        return self.scale.given(pixels)

    @torch.no_grad()
    def _clamp(self) -> None:
        if self.source.clamp and self.bench.input.pixels:
            low, high = (
                end.to(self.pixels)[:, None, None] for end in pixel_moments(self.bench.input)[2:]
            )
            torch.clamp(self.pixels, low, high, out=self.pixels)

    def state_dict(self) -> dict[str, Any]:
        """The images as they are now, and the optimizer."""
        if self.optimizer is None:
            return {}
        return {
            "pixels": self.pixels.detach(),
            "targets": self.targets,
            "conditions": self.conditions,
            "optimizer": self.optimizer.state_dict(),
            "tokens": {} if self.tokens is None else self.tokens.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a state from :meth:`state_dict`."""
        if state:
            device = self.bench.device
            asked = {name: each.to(device) for name, each in state["conditions"].items()}
            self._begin(state["pixels"].to(device), state["targets"].to(device), asked)
            assert self.optimizer is not None
            self.optimizer.load_state_dict(state["optimizer"])
            if self.tokens is not None:
                self.tokens.load_state_dict(state["tokens"])


class Redreaming(Dreaming):
    """Optimises a batch of the pool further, on other terms."""

    def __init__(self, pool: PixelPool, source: Pixels, first: int, count: int) -> None:
        super().__init__(pool, source, first, count)
        self.name = f"dreaming images {first + 1} to {first + count} again"

    def leave(self) -> None:
        """The pool holds the images as they are now in the place of those before."""
        if self.optimizer is not None:
            images = self._inputs(self.pixels.detach())
            self.pool.images[self.first : self.first + self.images] = images

    def _drawn(self) -> tuple[Tensor, Tensor]:
        rows = slice(self.first, self.first + self.images)
        return self.pool.images[rows].clone(), self.pool.targets[rows]
