"""The step: one batch of synthetic images and everything shared about it, computed once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from dreamquant import distributed
from dreamquant.errors import NetworkError
from dreamquant.networks.probe import batch_norms
from dreamquant.networks.taps import (
    ChannelStatistics,
    LastReluMap,
    batch_norm_inputs,
    batch_statistics,
    execution_order,
)
from dreamquant.terms.contract import Answer, Statistics, Tap

Network = Callable[[Tensor], Tensor]

_OTHER_NUMBERS = 2**32  # added to a seed, which is smaller
_NOISE_SEED = 0  # of the noise images that thresholds refer to: the same in every run


class Teacher:
    """The full-precision network P and what its batch norms remember, in the order executed.

    Args:
        network: in eval mode, without gradient to its parameters.
        example: normalised images for the one forward pass that finds the order.
        taps: what terms read; statistics and feature maps are only taken where they are listed.

    Raises:
        NetworkError: a term reads the last feature map, and no ReLU yields one.
    """

    def __init__(self, network: nn.Module, example: Tensor, taps: Collection[Tap]) -> None:
        self.network = network
        self.taps_activation = "activation" in taps
        self._tapped: Callable[[Tensor], tuple[Tensor, ...]] = _Tapped(self)
        self.references: dict[Callable[..., Tensor], Tensor] = {}
        all_norms = [norm for _, norm in batch_norms(network)]
        self.norms = all_norms if "statistics" in taps else []
        with torch.no_grad(), execution_order(self.norms) as executed:
            _, activation = self.answer(example)
        if self.taps_activation and activation.dim() != 4:
            raise NetworkError(
                "the method reads the last feature map, and no ReLU of the network yields one",
                remedy="use a method without attention or robustness terms, such as gdfq",
            )
        if self.norms and not executed:
            raise NetworkError(
                "the method reads batch-norm statistics, and none of the batch norms ever runs",
                remedy="use a network whose forward pass goes through them",
            )
        if not executed:
            return
        means = [cast(Tensor, norm.running_mean) for norm in executed]
        self.stored_mean = torch.cat(means)
        self.stored_var = torch.cat([cast(Tensor, norm.running_var) for norm in executed])
        self.share = torch.cat(
            [torch.full_like(mean, 1 / (len(mean) * len(executed))) for mean in means]
        )

    def answer(self, images: Tensor, weights: Mapping[str, Tensor] | None = None) -> Answer:
        """Logits and, where a term reads it, the last feature map (otherwise empty).

        Args:
            images: (B, C, H, W), normalised.
            weights: in place of the network's own parameters and buffers, which stay untouched.
        """
        with LastReluMap() if self.taps_activation else nullcontext() as watch:
            logits = functional_call(self.network, dict(weights or {}), (images,))
        found = None if watch is None else watch.found
        activation = images.new_empty(0) if found is None else found.float()
        return Answer(logits.float(), activation)

    def compile(self) -> None:
        """Let steps' images go through compiled graphs from now on."""
        from dreamquant.training.compiled import Compiled

        self._tapped = Compiled(_Tapped(self))

    def tapped(self, images: Tensor) -> tuple[Answer, ChannelStatistics | None]:
        """The answer to images, and their statistics where a term reads them."""
        logits, activation, *moments = self._tapped(images)
        return Answer(logits, activation), ChannelStatistics(*moments) if moments else None


class _Tapped(nn.Module):
    """All that is read of a teacher, as one function of images."""

    def __init__(self, teacher: Teacher) -> None:
        super().__init__()
        self.network, self._teacher = teacher.network, teacher

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        with batch_norm_inputs(self._teacher.norms) as collected:
            answer = self._teacher.answer(images)
        if not collected:
            return answer
        means, variances = zip(*collected, strict=True)
        return *answer, torch.cat(means).float(), torch.cat(variances).float()


class TeacherOnStep:
    """The teacher on a step's images: one forward pass serves logits, statistics and features."""

    def __init__(self, teacher: Teacher, images: Tensor, random: torch.Generator) -> None:
        self._teacher, self._images, self._random = teacher, images, random

    @cached_property
    def _forward(self) -> tuple[Answer, Statistics | None]:
        teacher = self._teacher
        answer, own = teacher.tapped(self._images)
        if own is None:
            return answer, None
        measured = distributed.moments(*own)
        return answer, Statistics(*measured, teacher.stored_mean, teacher.stored_var, teacher.share)

    @property
    def answer(self) -> Answer:
        """Logits and last feature map of the same forward pass."""
        return self._forward[0]

    @property
    def logits(self) -> Tensor:
        """(B, classes), float32."""
        return self.answer.logits

    @property
    def activation(self) -> Tensor:
        """The last feature map (B, F, h, w), float32."""
        return self.answer.activation

    @property
    def features(self) -> Tensor:
        """The last feature map pooled over space, (B, F)."""
        return self.answer.features

    @property
    def statistics(self) -> Statistics:
        """Batch-norm statistics of the same forward pass.

        Raises:
            RuntimeError: a term reads them without listing the tap.
        """
        statistics = self._forward[1]
        if statistics is None:
            raise RuntimeError("a term reads statistics without listing the tap 'statistics'")
        return statistics

    @cached_property
    def in_training_mode(self) -> Answer:
        """The answer with batch norm on the batch's own statistics; nothing is updated."""
        network = self._teacher.network
        # Updates go to these copies.
        buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
        with batch_statistics([norm for _, norm in batch_norms(network)]):
            return self._teacher.answer(self._images, buffers)

    def on(self, images: Tensor) -> Answer:
        """The answer to other images."""
        return self._teacher.answer(images)

    def under_weight_noise(self, noise: float) -> Answer:
        """The answer of a copy with Gaussian noise on its weights, in units of their deviation."""
        noisy = {
            name: weight + noise * weight.std() * self._drawn_like(weight)
            for name, weight in self._teacher.network.named_parameters()
            if weight.dim() > 1
        }
        return self._teacher.answer(self._images, noisy)

    def _drawn_like(self, weight: Tensor) -> Tensor:
        return torch.randn(weight.shape, generator=self._random, device=weight.device)


class StudentOnStep:
    """The student on a step's images."""

    def __init__(self, student: Network, images: Tensor) -> None:
        self._student, self._images = student, images

    @cached_property
    def logits(self) -> Tensor:
        """(B, classes), float32."""
        logits: Tensor = self._student(self._images).float()
        return logits


@dataclass(frozen=True)
class Chance:
    """Where a run's random numbers come from.

    Attributes:
        asked: what images are to be, on the device. Apart from what terms draw, since that depends
            on how many images a process makes at once.
        random: other tensors, on the device.
        dice: choices, on the CPU, so that they do not wait for the device.
    """

    asked: torch.Generator
    random: torch.Generator
    dice: torch.Generator

    @classmethod
    def seeded(cls, seed: int, device: torch.device) -> Chance:
        """All from one seed."""
        return cls(
            torch.Generator(device).manual_seed(seed),
            torch.Generator(device).manual_seed(seed + _OTHER_NUMBERS),
            torch.Generator().manual_seed(seed),
        )

    def state_dict(self) -> dict[str, Tensor]:
        """Where each of them stands."""
        return {name: generator.get_state() for name, generator in vars(self).items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from there."""
        for name, generator in vars(self).items():
            generator.set_state(state[name].cpu())


@dataclass(frozen=True)
class Request:
    """What a batch of images is to be.

    Attributes:
        targets: labels (B,), int64, or soft ones (B, classes).
        noise: (B, latent).
        centres: attention centres (B, 2), for methods that ask for them.
    """

    targets: Tensor
    noise: Tensor
    centres: Tensor | None = None

    def part(self, index: int, count: int) -> Request:
        """The ``index``-th of ``count`` equal parts; neighbours stay together, as pairs must."""
        size = len(self.targets) // count
        own = slice(index * size, (index + 1) * size)
        centres = None if self.centres is None else self.centres[own]
        return Request(self.targets[own], self.noise[own], centres)


@dataclass(frozen=True)
class Batch:
    """What the generator was asked for, and what it made.

    Attributes:
        images: (B, C, H, W), normalised, with a graph to the generator.
        targets: labels (B,), int64, or soft ones (B, classes).
        noise: (B, latent).
        centres: attention centres (B, 2), for methods that ask for them.
    """

    images: Tensor
    targets: Tensor
    noise: Tensor
    centres: Tensor | None = None


class Step:
    """What terms see of an iteration.

    Args:
        batch: images and what was asked of them.
        teacher: P.
        student: Q.
        chance: of terms that draw.
        student_learns: whether the student's warm-up is over.
    """

    def __init__(
        self,
        batch: Batch,
        teacher: Teacher,
        student: Network,
        chance: Chance,
        *,
        student_learns: bool,
    ) -> None:
        self._batch, self._teacher, self._student = batch, teacher, student
        self.images, self.targets, self.noise = batch.images, batch.targets, batch.noise
        self.random, self.dice = chance.random, chance.dice
        self.student_learns = student_learns
        self.teacher = TeacherOnStep(teacher, batch.images, chance.random)
        self.student = StudentOnStep(student, batch.images)

    @property
    def centres(self) -> Tensor:
        """Attention centres asked for, (B, 2).

        Raises:
            RuntimeError: the method asks for none.
        """
        if self._batch.centres is None:
            raise RuntimeError("a term reads attention centres and the method asks for none")
        return self._batch.centres

    def on_noise(self, measure: Callable[[Step], Tensor]) -> Tensor:
        """``measure`` of a step whose images are Gaussian noise, taken once a run, detached."""
        references = self._teacher.references
        if measure not in references:
            chance = Chance.seeded(_NOISE_SEED, self.images.device)
            shape, device = self.images.shape, self.images.device
            images = torch.randn(shape, generator=chance.random, device=device)
            batch = Batch(images, self.targets, self.noise, self._batch.centres)
            with torch.no_grad():
                references[measure] = measure(
                    Step(batch, self._teacher, self._student, chance, student_learns=False)
                )
        return references[measure]
