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

from dreamquant.quantization.clips import ChannelClip
from dreamquant.quantization.prepare import FoldedNorm
from dreamquant.recovery.branches import Reads

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
    """What was seen of one forward pass, by id of the tensor that was read."""

    reads: Reads
    layers: dict[int, str] = field(default_factory=dict)
    norms: dict[int, tuple[str, int]] = field(default_factory=dict)
    folded: dict[int, str] = field(default_factory=dict)
    clips: dict[int, tuple[str, int]] = field(default_factory=dict)
    outputs: list[tuple[str, int]] = field(default_factory=list)


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
        return lambda _, inputs, y: trail.folded.update({id(y): name})
    return None


def _at_layer(name: str, trail: _Trail, _: nn.Module, inputs: tuple[Any, ...], y: Tensor) -> None:
    trail.layers[id(inputs[0])] = name
    trail.outputs.append((name, id(y)))


def _through(
    name: str,
    seen: dict[int, tuple[str, int]],
    _: nn.Module,
    inputs: tuple[Any, ...],
    y: Tensor,
) -> None:
    seen[id(inputs[0])] = (name, id(y))


def _follow(first: str, here: int, trail: _Trail) -> Link | None:
    """The link of the layer whose output has the id ``here``; ``None`` if it has none."""
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
            step = _passed(here, trail.reads)
            if step is None:
                return None
            name, here = step
            relu = relu or name in _RELUS
    return None


def _passed(here: int, reads: Reads) -> tuple[str, int] | None:
    """The operation that read a tensor, if it keeps the channels and their scales."""
    func, x, y = reads.reader[here]
    keeps = keeps_channels(func, x, y) and y is not x
    return (func.__name__, id(y)) if keeps else None


def keeps_channels(func: Callable[..., Any], x: Tensor, y: Any) -> bool:
    """Whether ``y = func(x)`` has the channels of ``x``, with their scales kept."""
    alike = isinstance(y, Tensor) and y.dim() > 1 and y.shape[1] == x.shape[1]
    return alike and getattr(func, "__name__", "") in _SCALED
