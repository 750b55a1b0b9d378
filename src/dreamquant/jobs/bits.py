"""``--bits auto``: bits of every layer's weights, chosen for a size or for an agreement."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dreamquant.errors import SchemeError
from dreamquant.evaluation.sensitivity import Sensitivity, agreement_rounded, sensitivity
from dreamquant.evaluation.task import Task
from dreamquant.evaluation.tasks import task_of
from dreamquant.networks.spec import InputSpec
from dreamquant.quantization.allocation import allocate
from dreamquant.quantization.convert import quantize_network
from dreamquant.quantization.scheme import Bits, Scheme
from dreamquant.synthesis.dead_leaves import DeadLeaves
from dreamquant.synthesis.procedural import drawn_inputs

CHOICES = tuple(range(2, 9))
_POINTS = 12  # of the curve
_IMAGES = 64  # to measure sensitivity on, and as many others to measure agreement on
_SEED = 30_000_001  # neither of the probe set nor of any method's images


@dataclass(frozen=True)
class Point:
    """One point of the curve.

    Attributes:
        bytes: of the whole network: codes, scales, zero-points and what stays in float.
        agreement: with the teacher in percent, weights rounded and nothing recovered.
        bits: of each layer's weights.
    """

    bytes: int
    agreement: float
    bits: dict[str, int]


@dataclass(frozen=True)
class Chosen:
    """The bits that were chosen.

    Attributes:
        point: taken.
        mean: bits of a weight.
        curve: all points that were looked at, the smallest first.
    """

    point: Point
    mean: float
    curve: tuple[Point, ...]

    @property
    def overrides(self) -> tuple[tuple[str, Bits], ...]:
        """As a scheme takes them."""
        return tuple((_literal(name), Bits(bits, 8)) for name, bits in self.point.bits.items())

    def record(self) -> dict[str, Any]:
        """For the manifest."""
        curve = [{"bytes": each.bytes, "agreement": each.agreement} for each in self.curve]
        return {"bytes": self.point.bytes, "mean": self.mean, "curve": curve}


def choose_bits(
    network: nn.Module,
    spec: InputSpec,
    scheme: Scheme,
    *,
    size: int | None,
    max_drop: float | None,
) -> Chosen:
    """Bits of each layer's weights: the least damage within a size, or the smallest size.

    Each layer's damage is measured by itself and taken to add up; the choice is exact under that
    assumption. The curve's agreement is then measured with all layers rounded together, on images
    that the damage was not measured on.

    Args:
        network: prepared, in eval mode; left as it is.
        spec: its input.
        scheme: the rest of it; its overrides are kept.
        size: bytes that the network may take, or ``None``.
        max_drop: points of agreement that rounding may cost, or ``None``; one of both is given.

    Raises:
        SchemeError: no choice is as small, or loses as little.
    """
    device = next(network.parameters()).device
    _, coverage = quantize_network(network, scheme, torch.zeros(2, *spec.shape, device=device))
    layers = [layer for layer in coverage.layers if layer.shares is None]
    images, task = _images(spec, device), task_of(spec)
    seen, unseen = images[:_IMAGES], images[_IMAGES:]
    measured = sensitivity(network, [layer.name for layer in layers], CHOICES, seen, task)
    now = sum(measured.sizes[row, layer.weight_bits - 2] for row, layer in enumerate(layers))
    rest = coverage.weight_bytes + coverage.scale_bytes + coverage.float_bytes - round(now)
    _keep(measured, scheme)
    points = {}
    least, most = measured.sizes.min(1).sum(), measured.sizes.max(1).sum()
    limits = list(np.geomspace(least * 1.001, most, _POINTS))
    if size is not None:
        limits.append(max(size - rest, 1))
    for limit in limits:
        point = _point(network, measured, limit, rest, unseen, task)
        points[point.bytes] = point
    curve = tuple(points[count] for count in sorted(points))
    return _chosen(curve, measured, size=size, max_drop=max_drop)


def _images(spec: InputSpec, device: torch.device) -> Tensor:
    random = torch.Generator(device).manual_seed(_SEED)
    return drawn_inputs(DeadLeaves(), 2 * _IMAGES, spec, random)


def _keep(measured: Sensitivity, scheme: Scheme) -> None:
    """Let no other bits than the user's be chosen for the layers that they name."""
    for row, name in enumerate(measured.layers):
        asked = scheme.bits_of(name, first=row == 0, last=row == len(measured.layers) - 1)
        if asked.weight != scheme.bits.weight:
            others = [i for i, bits in enumerate(measured.bits) if bits != asked.weight]
            measured.damage[row, others] = 1e9


def _point(
    network: nn.Module,
    measured: Sensitivity,
    limit: float,
    rest: int,
    images: Tensor,
    task: Task,
) -> Point:
    columns = allocate(measured.damage, measured.sizes, limit)
    bits = {
        name: measured.bits[column] for name, column in zip(measured.layers, columns, strict=True)
    }
    taken = sum(measured.sizes[row, column] for row, column in enumerate(columns))
    return Point(rest + round(taken), agreement_rounded(network, bits, images, task), bits)


def _chosen(
    curve: tuple[Point, ...], measured: Sensitivity, *, size: int | None, max_drop: float | None
) -> Chosen:
    if size is not None:
        point = max((each for each in curve if each.bytes <= size), key=lambda each: each.bytes)
    else:
        assert max_drop is not None
        enough = [each for each in curve if each.agreement >= 100 - max_drop]
        if not enough:
            best = max(each.agreement for each in curve)
            raise SchemeError(
                f"with weights of 8 bits {100 - best:.2f} points of agreement are lost already",
                where=f"--max-drop {max_drop:g}",
                remedy="allow more, or give --size",
            )
        point = enough[0]
    return Chosen(point, round(_mean(point, measured), 2), curve)


def _mean(point: Point, measured: Sensitivity) -> float:
    """Bits of a weight, over all weights."""
    counts = measured.sizes[:, -1] - measured.sizes[:, 0]  # in proportion to the weights
    bits = np.array([point.bits[name] for name in measured.layers])
    return float((bits * counts).sum() / counts.sum())


def _literal(name: str) -> str:
    """A pattern that matches this name alone."""
    return re.sub(r"([*?[])", r"[\1]", name)
