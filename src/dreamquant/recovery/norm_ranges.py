"""Activation ranges computed from batch norms, whose output channels are assumed to be normal."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from dreamquant.networks.relu_maps import is_relu
from dreamquant.networks.values import Value, value_of
from dreamquant.quantization.affine import affine_parameters
from dreamquant.quantization.clips import ChannelClip
from dreamquant.quantization.prepare import FoldedNorm
from dreamquant.quantization.quantizers import ActivationQuantizer
from dreamquant.quantization.student import Student
from dreamquant.recovery.activations import search_range
from dreamquant.recovery.biases import known_of
from dreamquant.recovery.branches import operands
from dreamquant.recovery.links import keeps_channels
from dreamquant.recovery.part import Recovery
from dreamquant.synthesis.source import Images
from dreamquant.training.bench import Bench
from dreamquant.training.losses import Losses
from dreamquant.training.phase import Phase

_DRAWS = 1024  # draws of each channel, on which the rounding error is minimised
_NOISE = 8  # noise images; they also give the ranges of tensors that no batch norm describes


@dataclass(frozen=True)
class RangesFromBatchNorm(Recovery):
    """Activation ranges of n standard deviations, from the batch norm before each activation.

    Nagel et al., ICCV 2019, section 5: a range goes from ``min(mean - n deviation)`` to ``max(mean
    + n deviation)`` over channels, and is cut where the activation cuts. Where tensors are summed,
    means and variances are added. The paper treats 8 bits; with fewer bits, samples of these
    normals are rounded with the least squared error. The range of the image follows from its
    pixels; the range of any other tensor is measured on noise images.

    Attributes:
        deviations: n, at 8 bits.
    """

    ranges_by: ClassVar[str] = "by batch norms"

    deviations: float = 6.0

    def phases(self, bench: Bench, images: Images | None) -> Iterator[Phase]:
        """One phase of one step."""
        yield _FromNorms(bench, self.deviations)


class _FromNorms(Phase):
    name = "setting activation ranges from batch norms"
    total = 1

    def __init__(self, bench: Bench, deviations: float) -> None:
        super().__init__()
        self.bench, self.deviations = bench, deviations

    @torch.no_grad()
    def step(self) -> Losses:
        bench = self.bench
        random = torch.Generator(bench.device).manual_seed(bench.seed)
        shape = (_NOISE, *bench.input.shape)
        draw = torch.randn if bench.input.features else torch.rand
        noise = draw(shape, generator=random, device=bench.device)
        place_from_norms(bench.student, self._pixels(noise), self.deviations, random)
        return {}

    def _pixels(self, noise: Tensor) -> Tensor:
        """Noise that covers the range of an image: its extremes are black and white."""
        if self.bench.input.features:
            return noise
        mean, std = (
            torch.tensor(values, device=noise.device).view(-1, 1, 1)
            for values in (self.bench.input.mean, self.bench.input.std)
        )
        noise[0], noise[1] = 0, 1
        return (noise - mean) / std


@dataclass(frozen=True)
class _Channels:
    """Channels with normal values that are cut at both ends.

    Attributes:
        mean: (F,).
        deviation: (F,).
        low: lower end, the same for all channels.
        high: upper end of each channel, (F,), or of all, a number.
    """

    mean: Tensor
    deviation: Tensor
    low: float = -math.inf
    high: float | Tensor = math.inf

    def ends(self, deviations: float) -> tuple[Tensor, Tensor]:
        reach = deviations * self.deviation
        low = (self.mean - reach).clamp(min=self.low).amin()
        high = torch.minimum(self.mean + reach, torch.as_tensor(self.high).to(self.mean)).amax()
        return low, torch.maximum(low, high)

    def draws(self, random: torch.Generator) -> Tensor:
        shape = (_DRAWS, len(self.mean))
        drawn = torch.randn(shape, generator=random, device=self.mean.device)
        values = drawn * self.deviation + self.mean
        return torch.minimum(values, torch.as_tensor(self.high).to(values)).clamp(min=self.low)

    def plus(self, other: _Channels) -> _Channels:
        deviation = (self.deviation.square() + other.deviation.square()).sqrt()
        return _Channels(self.mean + other.mean, deviation, self.low + other.low)


def place_from_norms(
    student: Student, images: Tensor, deviations: float, random: torch.Generator
) -> None:
    """Set every activation range of a student during one forward pass.

    Args:
        student: in eval mode.
        images: (B, C, H, W) that cover the input's range.
        deviations: number of standard deviations at 8 bits.
        random: draws samples, at fewer bits.
    """
    student.eval().observe(False)
    known = _Known()

    def meet(quantizer: ActivationQuantizer, inputs: tuple[Any, ...]) -> None:
        channels = known.get(inputs[0])
        if channels is None:
            low, high = inputs[0].aminmax()
        elif quantizer.bits < 8:
            quantizer.place(*search_range([channels.draws(random)], quantizer.grid, 2.0))
            return
        else:
            low, high = channels.ends(deviations)
        quantizer.place(*affine_parameters(low, high, quantizer.grid))

    handles: list[Any] = []
    for module in student.modules():
        if isinstance(module, ActivationQuantizer):
            handles.append(module.register_forward_pre_hook(meet))
            handles.append(module.register_forward_hook(known.same))
        elif isinstance(module, (_BatchNorm, FoldedNorm)):
            handles.append(module.register_forward_hook(known.tell))
        elif isinstance(module, ChannelClip):
            handles.append(module.register_forward_pre_hook(known.clip))
    with ExitStack() as stack:
        for handle in handles:
            stack.callback(handle.remove)
        with known:
            student(images)


class _Known(TorchFunctionMode):
    """What is known of the channels of each value."""

    def __init__(self) -> None:
        super().__init__()
        # With each tensor, which stays alive, so that its value stays unique.
        self._channels: dict[Value, tuple[Tensor, _Channels]] = {}
        self._end: Tensor | None = None

    def get(self, x: Tensor) -> _Channels | None:
        found = self._channels.get(value_of(x))
        return None if found is None else found[1]

    def put(self, x: Tensor, channels: _Channels) -> None:
        self._channels[value_of(x)] = x, channels

    def tell(self, norm: nn.Module, _: Any, y: Tensor) -> None:
        self.put(y, _Channels(*known_of(norm)))

    def same(self, _: nn.Module, inputs: tuple[Any, ...], y: Tensor) -> None:
        channels = self.get(inputs[0])
        if channels is not None:
            self.put(y, channels)

    def clip(self, clip: nn.Module, _: Any) -> None:
        self._end = cast(ChannelClip, clip).end

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        pair = operands(func, args, kwargs)
        before = [self.get(x) for x in pair or args[:1] if isinstance(x, Tensor)]
        result = func(*args, **kwargs)
        if not before or any(each is None for each in before) or not isinstance(result, Tensor):
            return result
        channels = cast(_Channels, before[0])
        if pair is not None:
            self.put(result, channels.plus(cast(_Channels, before[1])))
        elif is_relu(func, args, kwargs):
            self.put(result, replace(channels, low=0.0, high=self._upper(channels, func)))
        elif keeps_channels(func, args[0], result) or func is torch.minimum:
            self.put(result, channels)
        return result

    def _upper(self, channels: _Channels, func: Callable[..., Any]) -> float | Tensor:
        if self._end is not None:
            end, self._end = self._end, None
            return end
        return 6.0 if "6" in func.__name__ or "hardtanh" in func.__name__ else channels.high
