"""``--bits auto``: bits of every layer's weights, chosen for a size or for an agreement."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dreamquant.errors import SchemeError
from dreamquant.evaluation.majority import constant_agreement, remark
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
_POINTS = 12  # number of points of the curve
_IMAGES = 64  # number of images for sensitivity, and of other images for agreement
_SEED = 30_000_001  # seed of images that are neither probe images nor a method's


@dataclass(frozen=True)
class Point:
    """One point of the curve.

    Attributes:
        bytes: of the whole network: codes, scales, zero-points and what stays in float.
        agreement: with the teacher in percent, for rounded weights before recovery.
        bits: of each layer's weights.
    """

    bytes: int
    agreement: float
    bits: dict[str, int]


@dataclass(frozen=True)
class Chosen:
    """The chosen bits.

    Attributes:
        point: the chosen point.
        mean: mean bits of a weight.
        curve: all points that were measured, the smallest first.
    """

    point: Point
    mean: float
    curve: tuple[Point, ...]

    @property
    def overrides(self) -> tuple[tuple[str, Bits], ...]:
        """The bits in the form of a scheme's overrides."""
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
    """Bits of each layer's weights: the least error within a size, or the smallest size.

    The error of each layer is measured by itself, and errors are assumed to add up; with this
    assumption the choice is exact. The curve's agreement is then measured with all layers rounded
    together, on other images.

    Args:
        network: prepared, in eval mode; it is not changed.
        spec: its input.
        scheme: the rest of the scheme; its overrides are kept.
        size: largest size of the network in bytes, or ``None``.
        max_drop: largest loss of agreement by rounding in percentage points, or ``None``; one of
            both is given.

    Raises:
        SchemeError: no choice is as small, or loses as little; or agreement says little.
    """
    device = next(network.parameters()).device
    _, coverage = quantize_network(network, scheme, torch.zeros(2, *spec.shape, device=device))
    layers = [layer for layer in coverage.layers if layer.shares is None]
    images, task = _images(spec, device), task_of(spec)
    seen, unseen = images[:_IMAGES], images[_IMAGES:]
    if max_drop is not None:
        _require_decisions(network, unseen, task, max_drop)
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


@torch.no_grad()
def _require_decisions(network: nn.Module, images: Tensor, task: Task, max_drop: float) -> None:
    """Refuse to choose by an agreement that a constant answer would have."""
    decisions = task.decisions(network(images))
    constant = None if decisions is None else constant_agreement(decisions)
    said = remark(constant, f"{len(images)} drawn images", given=False)
    if said is not None:
        raise SchemeError(
            said.what,
            where=f"--max-drop {max_drop:g}",
            remedy="check --mean, --std and --bgr, or give --size",
        )


def _keep(measured: Sensitivity, scheme: Scheme) -> None:
    """Keep the user's bits for the layers that they name."""
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
    """Mean bits of a weight, over all weights."""
    counts = measured.sizes[:, -1] - measured.sizes[:, 0]  # in proportion to the numbers of weights
    bits = np.array([point.bits[name] for name in measured.layers])
    return float((bits * counts).sum() / counts.sum())


def _literal(name: str) -> str:
    """A pattern that matches this name alone."""
    return re.sub(r"([*?[])", r"[\1]", name)
