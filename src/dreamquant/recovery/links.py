"""Pairs of linked layers: the second layer is the only one that reads the first layer's output.

Pairs are found by observing a forward pass, not by tracing. Between the two layers there may be a
batch norm, an activation that commutes with positive scaling, pooling, and padding with zeros.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dreamquant.networks.values import Value, value_of
from dreamquant.quantization.clips import ChannelClip
from dreamquant.quantization.prepare import FoldedNorm
from dreamquant.recovery.branches import Read, Reads

_RELUS = frozenset({"relu", "relu_"})
# f(s x) = s f(x) for s > 0, channel by channel.
_SCALED = _RELUS | {
    "leaky_relu",
    "leaky_relu_",
    "prelu",
    "pad",
    "mean",
    "flatten",
    "dropout",
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool3d",
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
}


class Link(NamedTuple):
    """Two layers and what lies between them.

    Attributes:
        first: name of the layer whose output channels are linked.
        second: name of the layer that reads them.
        norm: name of the batch norm between them, or of the :class:`FoldedNorm` in its place.
        clip: name of the :class:`ChannelClip` between them.
        relu: whether an activation between them cuts negative values to zero.
    """

    first: str
    second: str
    norm: str | None
    clip: str | None
    relu: bool


@dataclass
class _Trail:
    """What was seen of one forward pass, by the value that was read."""

    reads: Reads
    layers: dict[Value, str] = field(default_factory=dict)
    norms: dict[Value, tuple[str, Value]] = field(default_factory=dict)
    folded: dict[Value, str] = field(default_factory=dict)
    clips: dict[Value, tuple[str, Value]] = field(default_factory=dict)
    outputs: list[tuple[str, Value]] = field(default_factory=list)


@torch.no_grad()
def find_links(network: nn.Module, layers: Sequence[str], example: Tensor) -> list[Link]:
    """All pairs of linked layers, in the order in which the first layers run.

    Args:
        network: in eval mode.
        layers: names of convolution and linear modules.
        example: normalised images (B, C, H, W).
    """
    trail = _Trail(Reads())
    wanted = set(layers)
    handles = []
    for name, module in network.named_modules():
        look = _look(name, module, trail, wanted)
        if look is not None:
            handles.append(module.register_forward_hook(look))
    try:
        with trail.reads:
            network(example)
    finally:
        for handle in handles:
            handle.remove()
    names = [name for name, _ in trail.outputs]
    found = [_follow(name, out, trail) for name, out in trail.outputs if names.count(name) == 1]
    return [link for link in found if link is not None and names.count(link.second) == 1]


def _look(
    name: str, module: nn.Module, trail: _Trail, layers: set[str]
) -> Callable[..., None] | None:
    if name in layers:
        return partial(_at_layer, name, trail)
    if isinstance(module, _BatchNorm):
        return partial(_through, name, trail.norms)
    if isinstance(module, ChannelClip):
        return partial(_through, name, trail.clips)
    if isinstance(module, FoldedNorm):
        return lambda _, inputs, y: trail.folded.update({value_of(y): name})
    return None


def _at_layer(name: str, trail: _Trail, _: nn.Module, inputs: tuple[Any, ...], y: Tensor) -> None:
    trail.layers[value_of(inputs[0])] = name
    trail.outputs.append((name, value_of(y)))


def _through(
    name: str,
    seen: dict[Value, tuple[str, Value]],
    _: nn.Module,
    inputs: tuple[Any, ...],
    y: Tensor,
) -> None:
    seen[value_of(inputs[0])] = (name, value_of(y))


def _follow(first: str, here: Value, trail: _Trail) -> Link | None:
    """The link of the layer whose output is ``here``; ``None`` if it has none."""
    norm = clip = None
    relu = False
    while trail.reads.times[here] == 1:
        norm = trail.folded.get(here, norm)
        if here in trail.layers:
            return Link(first, trail.layers[here], norm, clip, relu)
        if here in trail.norms:
            if norm is not None or clip is not None or relu:
                return None
            norm, here = trail.norms[here]
        elif here in trail.clips:
            if clip is not None:
                return None
            (clip, here), relu = trail.clips[here], True
        else:
            read = trail.reads.reader[here]
            if read.value is None or read.value == here or not _passed(read):
                return None
            here = read.value
            relu = relu or read.func.__name__ in _RELUS
    return None


def _passed(read: Read) -> bool:
    return keeps_channels(read.func, read.read, read.result)


def keeps_channels(func: Callable[..., Any], x: Tensor, y: Any) -> bool:
    """Whether ``y = func(x)`` has the channels of ``x``, with their scales kept."""
    alike = isinstance(y, Tensor) and y.dim() > 1 and y.shape[1] == x.shape[1]
    return alike and getattr(func, "__name__", "") in _SCALED
