"""Batch norms that use the statistics of the images at hand, while closed forms work on them.

The inputs of a batch norm have other statistics on procedural images than on the training data, and
all later layers then compute on wrong values. Here each batch norm normalises by the statistics of
the images themselves, so that each channel of its output has the mean and the deviation that it has
on training data. Adaptive batch norm (Li et al., arXiv 1603.04779) does the same for images of
another domain. Teacher and student get the same maps and lose them afterwards, so neither network
is changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dreamquant import distributed
from dreamquant.networks.taps import unseen
from dreamquant.recovery.passes import advance_all, current, passes

Maps = dict[str, tuple[Tensor, Tensor]]
# A channel that is nearly constant on these images must not be scaled up by a huge factor.
_MOST = 10.0


class Adapted(NamedTuple):
    """The forward pass of a batch norm, followed by an affine map of each channel.

    Attributes:
        norm: the batch norm, with the statistics of the training data.
        slope: (F,), positive.
        shift: (F,).
    """

    norm: _BatchNorm
    slope: Tensor
    shift: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """The normalised and mapped input, of the same shape."""
        return _mapped(type(self.norm).forward(self.norm, x), self.slope, self.shift)


@torch.no_grad()
def statistics_of(
    teacher: nn.Module, batches: Sequence[Tensor]
) -> dict[str, tuple[Tensor, Tensor]]:
    """The maps that give each batch norm's output the mean and deviation of its bias and weight.

    Args:
        teacher: in eval mode.
        batches: batches of normalised images; the forward passes of all batches run at the same
            time.

    Returns:
        Slope and shift of each batch norm, by its name; a batch norm that runs several times is
            measured at its first run.
    """
    norms = {name: m for name, m in teacher.named_modules() if isinstance(m, _BatchNorm)}
    found: Maps = {}
    handles = [m.register_forward_hook(partial(_leave, name, found)) for name, m in norms.items()]
    try:
        with passes([partial(teacher, x) for x in batches]) as each:
            while (met := advance_all(each)) is not None:
                name = cast(str, met[0])
                found[name] = _map_of(norms[name], met[1])
    finally:
        for handle in handles:
            handle.remove()
    return found


def _leave(name: str, found: Maps, _: nn.Module, inputs: Any, y: Tensor) -> Tensor | None:
    here = current()
    if here is None or name in here.met:
        return None
    here.met.add(name)
    here.stop(name, y)
    return _mapped(y, *found[name])


def _map_of(norm: _BatchNorm, given: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    over = [axis for axis in range(given[0].dim()) if axis != 1]
    each = [torch.var_mean(y, over, correction=0) for y in given]
    mean = distributed.mean(torch.stack([m for _, m in each]).mean(0))
    square = torch.stack([v + (m - mean).square() for v, m in each]).mean(0)
    deviation = distributed.mean(square).sqrt()
    wanted = norm.weight.abs() if norm.affine else torch.ones_like(mean)
    centre = norm.bias if norm.affine else torch.zeros_like(mean)
    slope = (wanted / deviation.clamp(min=1e-12)).clamp(1 / _MOST, _MOST)
    return slope, centre - slope * mean


def _mapped(y: Tensor, slope: Tensor, shift: Tensor) -> Tensor:
    wide = (-1, *[1] * (y.dim() - 2))
    with unseen():  # torch function modes must see the network's operations only
        return y * slope.view(wide) + shift.view(wide)


@contextmanager
def adapted(networks: Sequence[nn.Module], maps: Maps) -> Iterator[None]:
    """Apply maps to the outputs of batch norms while the context is open.

    Args:
        networks: networks whose modules have the same names.
        maps: from :func:`statistics_of`.
    """
    norms = [
        (cast(_BatchNorm, network.get_submodule(name)), each)
        for network in networks
        for name, each in maps.items()
    ]
    try:
        for norm, each in norms:
            norm.forward = Adapted(norm, *each)  # type: ignore[method-assign,assignment]
        yield
    finally:
        for norm, _ in norms:
            norm.__dict__.pop("forward", None)
