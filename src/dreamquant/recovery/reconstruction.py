"""The work on one unit: its inputs, its wanted outputs, and the values that are learned for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from dreamquant.quantization.logarithmic import LogQuantizer
from dreamquant.quantization.student import Student
from dreamquant.recovery.branches import Branch
from dreamquant.recovery.layerwise import add_bias
from dreamquant.recovery.soft import SoftRange, SoftWeight, mixed
from dreamquant.recovery.unit_step import UnitBatch, UnitStep, UnitTerms, unit_players
from dreamquant.recovery.units import Unit, quantizers_of
from dreamquant.recovery.walk import slope_of
from dreamquant.terms.contract import weighted
from dreamquant.training.losses import Losses, total
from dreamquant.training.rng import Rng

# As in AdaRound and BRECQ, the penalty starts after a fifth of the steps, and its exponent falls
# from 20 to 2.
_FREE, _EXPONENTS = 0.2, (20.0, 2.0)


class Schedule(NamedTuple):
    """The numbers of a unit's training.

    Attributes:
        rates: learning rates of soft bits, weight scales, activation scales and biases.
        drop: see :class:`Reconstruct`.
        decide: see :class:`Reconstruct`.
        batch: images of a step.
    """

    rates: tuple[float, float, float, float]
    drop: float
    decide: float
    batch: int


class _Reached(Exception):  # noqa: N818 - it ends a forward pass, nothing is wrong
    pass


class Reconstruction:
    """The learned values of one unit, and the unit's inputs and wanted outputs on all images.

    Args:
        student: only :meth:`settle` changes it.
        teacher: its modules have the names of the student's.
        unit: the unit to work on; all units before it are done.
        branches: of the layers, from :func:`find_branches`.
        pool: normalised images in batches.
        reads: the terms that are minimised, on views of the two units.
        schedule: the numbers of the training.
        rng: draws batches, and the elements that stay unquantized.

    Raises:
        NetworkError: the unit lacks what a term reads inside it.
    """

    def __init__(
        self,
        student: Student,
        teacher: nn.Module,
        unit: Unit,
        branches: Mapping[str, Branch],
        pool: Sequence[Tensor],
        reads: UnitTerms,
        schedule: Schedule,
        rng: Rng,
    ) -> None:
        self.student, self.unit, self.branches = student.eval(), unit, branches
        self.terms, self.schedule, self.rng = weighted(reads.terms), schedule, rng
        student.observe(False)
        module = student.network.get_submodule(unit.name)
        original = teacher.get_submodule(unit.name)
        self.inputs = torch.cat([read_by(module, student, x) for x in pool])
        self.exact, self.wanted = _read_and_given(teacher, original, pool)
        self.channel_weights = _channel_weights(student.network, unit, branches)
        quantizers = quantizers_of(student, unit, pool[0][:2])
        example = self.exact[:2].clone()
        self.players = unit_players(original, module, quantizers.context, example, reads)
        # Quantizers to powers of two keep their scale.
        affine = [q for q in quantizers.all if not isinstance(q, LogQuantizer)]
        self.ranges = {q: SoftRange(q) for q in affine}
        weights = student.quantized_weights()
        self.weights = {
            name: SoftWeight(weights[name], cast(Tensor, teacher.get_submodule(name).weight))
            for name in unit.layers
            if name in weights
        }
        self.biases = {name: self._bias(name) for name in unit.layers}
        self.before = self._error()
        self.optimizer = torch.optim.Adam(
            [{"params": group, "lr": 0.0} for group in self._groups()]
        )

    def _bias(self, name: str) -> Tensor:
        layer = self.student.network.get_submodule(name)
        channels = getattr(layer, "out_channels", None) or layer.out_features
        return torch.zeros(cast(int, channels), device=self.inputs.device).requires_grad_()

    def _groups(self) -> list[list[Tensor]]:
        return [
            [weight.bits for weight in self.weights.values()],
            [weight.growth for weight in self.weights.values()],
            # An optimizer takes no empty group; a unit may have no activation of its own.
            [each.growth for each in self.ranges.values()] or [torch.zeros(1).requires_grad_()],
            list(self.biases.values()),
        ]

    def step(self, progress: float) -> Losses:
        """One update.

        Args:
            progress: fraction of the steps that are done.
        """
        falling = (1 + math.cos(math.pi * progress)) / 2
        for group, rate, cosine in zip(
            self.optimizer.param_groups, self.schedule.rates, (False, True, True, True), strict=True
        ):
            group["lr"] = rate * falling if cosine else rate
        rows = torch.randint(
            len(self.inputs),
            (min(self.schedule.batch, len(self.inputs)),),
            generator=self.rng.asked,
            device=self.inputs.device,
        )
        exact = self.exact[rows]
        x = mixed(self.inputs[rows], exact, self.schedule.drop, self.rng.asked)
        losses: Losses = {}
        with self._soft(self.schedule.drop):
            loss = self._loss(UnitBatch(x, exact, self.wanted[rows]), losses)
        penalty = self._penalty(progress)
        self.optimizer.zero_grad()
        learned = [p for group in self.optimizer.param_groups for p in group["params"]]
        found = torch.autograd.grad(loss + penalty, learned, allow_unused=True)
        for parameter, gradient in zip(learned, found, strict=True):
            parameter.grad = gradient
        self.optimizer.step()
        return {**losses, "student/undecided": penalty.detach()}

    def _loss(self, batch: UnitBatch, losses: Losses) -> Tensor:
        step = UnitStep(batch, self.players, self.channel_weights, self.rng)
        return total(self.terms, step, losses, "student", 1)

    def _penalty(self, progress: float) -> Tensor:
        if progress < _FREE or not self.schedule.decide:
            return self.inputs.new_zeros(())
        high, low = _EXPONENTS
        exponent = high + (low - high) * (progress - _FREE) / (1 - _FREE)
        total = torch.stack([weight.penalty(exponent) for weight in self.weights.values()]).sum()
        return self.schedule.decide * total

    @contextmanager
    def _soft(self, drop: float) -> Iterator[None]:
        """Run the unit with the learned values in place of the student's."""
        network = self.student.network
        with ExitStack() as stack:
            for weight in self.weights.values():
                # Computed outside the unit's context, where a clamp would count as an activation.
                hook = _giving(weight.soft())
                stack.enter_context(_removed(weight.weight.quantizer.register_forward_hook(hook)))
            for quantizer, each in self.ranges.items():
                drops = _dropping(each, drop, self.rng.asked)
                stack.enter_context(_removed(quantizer.register_forward_hook(drops)))
            for name, bias in self.biases.items():
                layer = network.get_submodule(name)
                stack.enter_context(_removed(layer.register_forward_hook(_adding(bias))))
            yield

    @torch.no_grad()
    def _error(self) -> float:
        """Mean loss over all images, with the values that the student holds."""
        kept = (self.inputs, self.exact, self.wanted)
        batches = zip(*(torch.split(x, self.schedule.batch) for x in kept), strict=True)
        parts = [
            # Activations that work in place must not overwrite the stored inputs.
            self._loss(UnitBatch(x.clone(), exact.clone(), wanted), {}) * len(x)
            for x, exact, wanted in batches
        ]
        return float(torch.stack(parts).sum()) / len(self.inputs)

    @torch.no_grad()
    def settle(self) -> None:
        """Write rounded values into the student; restore its state where the loss did not fall."""
        kept = {name: tensor.clone() for name, tensor in self.student.state_dict().items()}
        for weight in self.weights.values():
            weight.settle()
        for each in self.ranges.values():
            each.settle()
        for name, bias in self.biases.items():
            add_bias(self.student.network, name, self.branches[name], bias)
        if not self._error() < self.before:
            self.student.load_state_dict(kept)

    def state_dict(self) -> dict[str, Any]:
        """The learned values, the optimizer and the random generators."""
        groups = [[p.detach().clone() for p in group] for group in self._groups()]
        return {
            "learned": groups,
            "optimizer": self.optimizer.state_dict(),
            "random": self.rng.state_dict(),
        }

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a state from :meth:`state_dict`."""
        for own, saved in zip(self._groups(), state["learned"], strict=True):
            for parameter, value in zip(own, saved, strict=True):
                parameter.copy_(value)
        self.optimizer.load_state_dict(state["optimizer"])
        self.rng.load_state_dict(state["random"])


@contextmanager
def _removed(handle: Any) -> Iterator[None]:
    try:
        yield
    finally:
        handle.remove()


def _giving(value: Tensor) -> Callable[..., Tensor]:
    return lambda *_: value


def _dropping(each: SoftRange, drop: float, random: torch.Generator) -> Callable[..., Tensor]:
    return lambda _, inputs, y: each.quantized(inputs[0], drop, random)


def _adding(bias: Tensor) -> Callable[..., Tensor]:
    def add(layer: nn.Module, _: Any, y: Tensor) -> Tensor:
        if isinstance(layer, nn.Linear):
            return y + bias
        return y + bias.view(-1, *[1] * (y.dim() - 2))

    return add


@torch.no_grad()
def read_by(module: nn.Module, network: nn.Module, images: Tensor) -> Tensor:
    """The input of a module of ``network`` when the network sees images."""
    seen: list[Tensor] = []

    def stop(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        seen.append(inputs[0].clone())
        raise _Reached

    # The hook runs before a layer quantizes its input, which is part of the unit.
    with _removed(module.register_forward_pre_hook(stop, prepend=True)), suppress(_Reached):
        network(images)
    return seen[0]


@torch.no_grad()
def _read_and_given(
    network: nn.Module, module: nn.Module, pool: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Inputs and outputs of a module when ``network`` sees the images of a pool."""
    inputs: list[Tensor] = []
    outputs: list[Tensor] = []

    def stop(_: nn.Module, given: Any, y: Tensor) -> None:
        outputs.append(y.clone())
        raise _Reached

    before = module.register_forward_pre_hook(lambda _, given: inputs.append(given[0].clone()))
    with _removed(before), _removed(module.register_forward_hook(stop)):
        for images in pool:
            with suppress(_Reached):
                network(images)
    return torch.cat(inputs), torch.cat(outputs)


def _channel_weights(network: nn.Module, unit: Unit, branches: Mapping[str, Branch]) -> Tensor:
    """Weight of each output channel's error: the squared slope of the batch norm after a layer."""
    slope = slope_of(network, branches[unit.name]) if unit.name in branches else None
    return torch.ones(1, 1) if slope is None else slope.square()[None]
