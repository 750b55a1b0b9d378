"""The reference: the published loop of the GDFQ family in eager PyTorch.

As the released codes have it: the student runs twice, gradients go to every weight on the way,
statistics are taken layer by layer, quantizers are chains of elementwise operations with autograd
in between, optimizers are those of ``torch.optim``. Losses are the terms of the package; what is
compared is the loop around them, and ``tests/test_benchmarks.py`` holds both to the same results.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from dreamquant.networks.norm_inputs import BatchNormInputs, Statistics
from dreamquant.networks.probe import batch_norms
from dreamquant.networks.taps import Tap, unseen
from dreamquant.quantization.quantizers import ActivationQuantizer, WeightQuantizer
from dreamquant.quantization.student import Student
from dreamquant.synthesis.generator_networks import UpsampledConv2d
from dreamquant.terms.contract import Weighted
from timed import Timed


class PlainWeight(nn.Module):
    """Per-channel min-max of the latent weight, taken anew in every forward pass."""

    def __init__(self, quantizer: WeightQuantizer) -> None:
        super().__init__()
        self.bits, self.axis = quantizer.bits, quantizer.axis

    def forward(self, weight: Tensor) -> Tensor:
        """The weight on its grid, gradient straight through."""
        # A student takes clamp from 0 for one of the network's activations, and would quantize it.
        with unseen():
            rows = weight.detach().transpose(0, self.axis).flatten(1)
            low, high = rows.min(1).values.clamp(max=0), rows.max(1).values.clamp(min=0)
            shape = [1] * weight.dim()
            shape[self.axis] = -1
            return _on_grid(weight, low.view(shape), high.view(shape), self.bits)


class PlainActivation(nn.Module):
    """A frozen range per tensor."""

    low: Tensor
    high: Tensor

    def __init__(self, quantizer: ActivationQuantizer) -> None:
        super().__init__()
        self.bits = quantizer.bits
        low, high = quantizer.range.read()
        self.register_buffer("low", low.clamp(max=0))
        self.register_buffer("high", high.clamp(min=0))

    def forward(self, x: Tensor) -> Tensor:
        """``x`` on the grid, gradient straight through."""
        return _on_grid(x, self.low, self.high, self.bits)


def _on_grid(x: Tensor, low: Tensor, high: Tensor, bits: int) -> Tensor:
    levels = 2**bits - 1
    scale = (high - low) / levels
    zero_point = torch.round(-low / scale)
    codes = torch.clamp(torch.round(x / scale) + zero_point, 0, levels)
    rounded: Tensor = (codes - zero_point) * scale
    return x + (rounded - x).detach()


class PlainUpsampledConv2d(nn.Module):
    """Upsample, then convolve, with the published bias, which batch norm removes."""

    def __init__(self, module: UpsampledConv2d) -> None:
        super().__init__()
        self.weight, self.size = module.weight, module.size
        self.bias = nn.Parameter(torch.zeros_like(module.weight[:, 0, 0, 0]))

    def forward(self, x: Tensor) -> Tensor:
        """(B, features_out, *size)."""
        enlarged = F.interpolate(x.contiguous(), self.size)
        return F.conv2d(enlarged, self.weight, self.bias, padding=1)


@dataclass
class PlainView:
    """What terms read of a network: its output and its inner tensors."""

    output: Tensor | None
    inside: dict[Tap[Any], Any] = field(default_factory=dict)

    def __getitem__(self, tap: Tap[Any]) -> Any:
        return self.inside[tap]


class PlainLoop:
    """The loop from the state of one of our runs: it copies networks, ranges and numbers.

    Args:
        run: the generator's warm-up is over and ranges are frozen; it is not touched.

    Attributes:
        generator: G.
        student: Q.
    """

    def __init__(self, run: Timed) -> None:
        source, learner = run.images.source, run.learns.learner
        self.latent, self.classes = source.latent, run.bench.input.num_classes
        self.generator_terms, self.student_terms = run.images.terms, learner.terms
        self.asks_student = run.images.asks_student
        self.teacher = copy.deepcopy(run.bench.teacher).requires_grad_(True)
        self.student = _plain_student(run.bench.student)
        self.generator = _plain_generator(run.images.network)
        self.generator_optimizer = torch.optim.Adam(
            self.generator.parameters(), lr=source.lr, betas=(0.5, 0.999)
        )
        numbers = learner.recovery
        self.student_optimizer = torch.optim.SGD(
            self.student.parameters(),
            lr=numbers.lr,
            momentum=numbers.momentum,
            weight_decay=numbers.weight_decay,
            nesterov=True,
        )

    def synthesize(self, noise: Tensor, targets: Tensor) -> Tensor:
        """Images (B, C, H, W) with a graph to the generator."""
        return cast(Tensor, self.generator(noise, targets))

    def teach_generator(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """One step of the generator; its loss, and the teacher's logits."""
        with _layers(self.teacher) as layers:
            logits = self.teacher(images)
        student = PlainView(self.student(images) if self.asks_student else None)
        teacher = PlainView(logits, {BatchNormInputs(): _statistics(layers)})
        step = SimpleNamespace(targets=targets, teacher=teacher, student=student)
        loss = _total(self.generator_terms, step)
        self.generator_optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.generator_optimizer.step()
        return loss.detach(), logits.detach()

    def teach_student(self, images: Tensor, targets: Tensor, logits: Tensor) -> Tensor:
        """One step of the student on the same images; its loss."""
        step = SimpleNamespace(
            targets=targets,
            teacher=PlainView(logits),
            student=PlainView(self.student(images.detach())),
        )
        loss = _total(self.student_terms, step)
        self.student_optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.student_optimizer.step()
        return loss.detach()


def _total(terms: tuple[Weighted, ...], step: Any) -> Tensor:
    return torch.stack([weighted.weight * weighted.term(step) for weighted in terms]).sum()


def _plain_student(student: Student) -> Student:
    plain = copy.deepcopy(student)
    for module in plain.modules():
        if parametrize.is_parametrized(module, "weight"):
            chain = cast(nn.ModuleDict, module.parametrizations)["weight"]
            assert isinstance(chain, nn.ModuleList)
            chain[0] = PlainWeight(cast(WeightQuantizer, chain[0]))
    for group, quantizers in student.groups().items():
        plains = [PlainActivation(cast(ActivationQuantizer, each)) for each in quantizers]
        setattr(plain, group, nn.ModuleList(plains))
    return plain


def _plain_generator(generator: nn.Module) -> nn.Module:
    plain = copy.deepcopy(generator)
    for parent in list(plain.modules()):
        for name, child in parent.named_children():
            if isinstance(child, UpsampledConv2d):
                setattr(parent, name, PlainUpsampledConv2d(child))
    return plain


@contextmanager
def _layers(network: nn.Module) -> Iterator[list[tuple[Tensor, ...]]]:
    layers: list[tuple[Tensor, ...]] = []

    def take(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        mean, var = inputs[0].mean((0, 2, 3)), inputs[0].var((0, 2, 3), unbiased=False)
        layers.append((mean, var, cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)))

    handles = [norm.register_forward_pre_hook(take) for _, norm in batch_norms(network)]
    yield layers
    for handle in handles:
        handle.remove()


def _statistics(layers: list[tuple[Tensor, ...]]) -> Statistics:
    mean, var, stored_mean, stored_var = map(torch.cat, zip(*layers, strict=True))
    return Statistics(mean, var, stored_mean, stored_var, tuple(len(layer[0]) for layer in layers))
