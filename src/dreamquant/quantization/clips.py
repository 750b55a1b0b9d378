"""ReLU6 with an end for each channel: scaling channels then passes through it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dreamquant.quantization.prepare import Preparation, replace_module


class ChannelClip(nn.Module):
    """``x`` (B, F, ...) clamped to ``[0, end]``, with an end for each channel.

    Attributes:
        end: (F,), positive.
    """

    end: Tensor

    def __init__(self, channels: int, end: float) -> None:
        super().__init__()
        self.register_buffer("end", torch.full((channels,), end))

    def forward(self, x: Tensor) -> Tensor:
        """Clipped, same shape."""
        # The ReLU comes last: what leaves it is what a student quantizes.
        return F.relu(torch.minimum(x, self.end.view(-1, *[1] * (x.dim() - 2))))


@dataclass(frozen=True)
class ClipPerChannel(Preparation):
    """ReLU6 modules become clips whose ends are per channel, at first 6 for all.

    A module that runs more than once stays, since its runs would share the ends; so does a ReLU6
    that is called as a function.
    """

    structural: ClassVar[bool] = True

    def apply(self, network: nn.Module, example: Tensor) -> None:
        """Replace each module that runs once."""
        channels: dict[str, list[int]] = {}

        def note(name: str, inputs: tuple[Any, ...]) -> None:
            channels.setdefault(name, []).append(cast(Tensor, inputs[0]).shape[1])

        handles = [
            module.register_forward_pre_hook(lambda _, inputs, name=name: note(name, inputs))
            for name, module in network.named_modules()
            if isinstance(module, nn.ReLU6)
        ]
        try:
            network(example)
        finally:
            for handle in handles:
                handle.remove()
        for name, seen in channels.items():
            if len(seen) == 1:
                clip = ChannelClip(seen[0], 6.0).to(example.device)
                replace_module(network, name, clip.eval())
