"""A generator of images that is trained in turns with the student (GDFQ and its successors)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from dreamquant.errors import MethodError
from dreamquant.networks.classifier_input import classifier_weight
from dreamquant.networks.pixels import FeatureScale
from dreamquant.synthesis.class_mixtures import SimilarClasses
from dreamquant.synthesis.embeddings import Superposed
from dreamquant.synthesis.generator_networks import (
    ImageNetGenerator,
    Interleaved,
    SmallGenerator,
    build_generator,
)
from dreamquant.synthesis.source import Images, Source, require_any_output
from dreamquant.synthesis.targets import Condition, Nothing, OneHot, Targets
from dreamquant.terms.contract import Terms, weighted
from dreamquant.training.batch import Batch, Request
from dreamquant.training.bench import Bench
from dreamquant.training.decay import Decay, Steps, stretch
from dreamquant.training.losses import Losses, total
from dreamquant.training.optimizers import Adam
from dreamquant.training.phase import Phase
from dreamquant.training.step import Step
from dreamquant.training.turns import add_gradients, require_equal_parts, turn

_ONE_HOT, _CONSTANT = OneHot(), Steps(())


@dataclass(frozen=True)
class Generator(Source):
    """A conditional generator; its images change with every update, and none is kept.

    Attributes:
        terms: the losses that it minimises.
        targets: targets of the images.
        condition: a further condition of the images; ``None`` for none.
        latent: length of its noise.
        embedding: how labels join the noise; ``None`` uses the embedding of the published generator
            for this image size.
        batch: images of a batch while it learns alone.
        alone: number of iterations at the start in which only the generator learns.
        observe: number of iterations at the start in which the student's activation ranges are
            observed on its images; at most ``alone``.
        networks: number of generators with weights of their own, which make images in turn.
        lr: learning rate of Adam with betas (0.5, 0.999).
        decay: decay of the learning rate over all iterations of the run.

    Raises:
        MethodError: ``observe`` is larger than ``alone``.
    """

    terms: Terms
    targets: Targets | SimilarClasses = _ONE_HOT
    condition: Condition | None = None
    latent: int = 100
    embedding: Superposed | None = None
    batch: int = 16
    alone: int = 100
    observe: int = 100
    networks: int = 1
    lr: float = 1e-3
    decay: Decay = _CONSTANT

    def __post_init__(self) -> None:
        if self.observe > self.alone:
            raise MethodError(
                f"ranges are observed for {self.observe} iterations, and the generator "
                f"learns alone for {self.alone}",
                remedy="let observe be at most alone",
            )

    @property
    def group(self) -> int:  # type: ignore[override]
        """Number of consecutive images that share a target or condition."""
        asked = 1 if self.condition is None else self.condition.copies
        return max(self.targets.copies, asked, self.networks)

    @property
    def iterations(self) -> int:
        """Iterations in which only the generator learns."""
        return self.alone

    def for_any_output(self) -> Generator:
        """Always refused: the generator takes a class for each image.

        Raises:
            MethodError: always.
        """
        if self.targets != Nothing():
            raise MethodError("its generator takes a class for each image")
        require_any_output(self.terms, "its generator")
        return self

    def stretched(self, ratio: float) -> Generator:
        """The same with ``ratio`` times as many iterations."""
        return replace(
            self,
            alone=stretch(self.alone, ratio),
            observe=stretch(self.observe, ratio),
            decay=self.decay.stretched(ratio),
        )

    def open(self, bench: Bench, updates: int) -> Stream:
        """A generator with new weights.

        Raises:
            TrainingError: a batch cannot be divided into so many micro-batches.
        """
        require_equal_parts(self.batch, bench.parts, self.group)
        return Stream(self, bench, self.alone + updates)


class Stream(Images):
    """The images of a generator that learns.

    Args:
        source: the numbers of the generator.
        bench: networks, random generators and device of the run.
        updates: number of updates in the whole run.

    Attributes:
        network: the generator.
        latent: length of its noise.
        targets: targets of the images, fitted to the teacher.
        scale: of features.
        done: number of updates so far.
    """

    def __init__(self, source: Generator, bench: Bench, updates: int) -> None:
        super().__init__(bench)
        self.source, self.updates, self.done = source, updates, 0
        self.terms = weighted(source.terms)
        self.scale = FeatureScale(bench.input, bench.device)
        self._told = source.targets != Nothing()
        self.targets = self._fitted(source.targets)
        with torch.random.fork_rng():
            torch.manual_seed(bench.seed)
            made = [self._made() for _ in range(source.networks)]
        self.latent = made[0].latent
        self.network: nn.Module = made[0] if len(made) == 1 else Interleaved(made)
        self.network.to(bench.device)
        self._parameters = list(self.network.parameters())
        self.optimizer = Adam(self._parameters, betas=(0.5, 0.999))
        self._generate: Callable[..., Tensor] = self.network
        # Its batch norms communicate with other processes, which a compiled graph cannot.
        if bench.compiled and bench.accelerator.num_processes == 1:
            from dreamquant.training.compiled import Compiled

            self._generate = Compiled(self.network)

    def _fitted(self, targets: Targets | SimilarClasses) -> Targets:
        if not isinstance(targets, SimilarClasses):
            return targets
        bench, classes = self.bench, self.bench.input.num_classes
        return targets.fitted(classifier_weight(bench.teacher, bench.example(), classes))

    def _made(self) -> SmallGenerator | ImageNetGenerator:
        source, spec = self.source, self.bench.input
        classes = spec.num_classes if self._told else 1
        width = 0 if source.condition is None else source.condition.width
        if source.embedding is None:
            return build_generator(spec.image, classes, source.latent, condition=width)
        own = source.embedding.build(self.bench, source.latent)
        return build_generator(
            spec.image, classes, own.embedding_dim, condition=width, embedding=own
        )

    @property
    def parameters(self) -> Sequence[Tensor]:
        """The generator's parameters."""
        return self._parameters

    @property
    def asks_student(self) -> bool:
        """Whether a term of the generator reads the student."""
        return bool(self.source.student_taps)

    def networks(self) -> Mapping[str, nn.Module]:
        """The generator."""
        return {"generator": self.network}

    def phases(self) -> Iterator[Phase]:
        """The generator learns alone."""
        if self.source.alone:
            yield GeneratorWarmUp(self)

    def ask(self, size: int, random: torch.Generator, targets: Tensor | None = None) -> Request:
        """Draw targets, conditions and noise, in this order."""
        source = self.source
        if targets is None:
            targets = self.targets.sample(size, self.bench.input.num_classes, random)
        conditions = {}
        if source.condition is not None:
            conditions[source.condition.name] = source.condition.sample(size, random)
        noise = torch.randn((size, self.latent), generator=random, device=random.device)
        return Request(targets, noise, conditions)

    def make(self, request: Request) -> Batch:
        """Images, with a graph to the generator where gradients are recorded."""
        conditions, targets = tuple(request.conditions.values()), request.targets
        told = targets if self._told else Nothing().sample(len(targets), 1, self.bench.rng.asked)
        images = self.scale.given(self._generate(request.latent, told, *conditions))
        return Batch(images, request.targets, request.latent, request.conditions)

    def learn(self, step: Step, losses: Losses) -> None:
        """Add the gradients of the generator's terms."""
        loss = total(self.terms, step, losses, "generator", self.bench.accumulate)
        add_gradients(self._parameters, torch.autograd.grad(loss, self._parameters))

    def update(self) -> None:
        """One step of Adam."""
        source = self.source
        self.optimizer.step(source.lr * source.decay.factor(self.done, self.updates))
        self.done += 1

    def state_dict(self) -> dict[str, Any]:
        """Weights, optimizer, and the number of updates so far."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "done": self.done,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a state from :meth:`state_dict`."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.done = state["done"]


class GeneratorWarmUp(Phase):
    """Only the generator learns; at first the student's ranges are observed on its images."""

    name = "generator warms up"
    stretches = in_training_precision = True

    def __init__(self, stream: Stream) -> None:
        super().__init__()
        self.stream = stream
        self.total, self.images = stream.source.alone, stream.source.batch

    def step(self) -> Losses:
        """One update of the generator."""
        source = self.stream.source
        return turn(
            self.stream.bench,
            self.stream.parts(source.batch),
            [self.stream],
            observe=self.done < source.observe,
        )

    def trained(self) -> Mapping[str, nn.Module]:
        """The generator."""
        return self.stream.networks()
