"""Attention as images of things have it, and several things in an image: SARDFQ (ICCV 2025)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dreamquant.networks.attention_taps import PatchAttention
from dreamquant.terms.contract import Step, Term

PRIORS = "attention priors"  # the condition: (B, mixtures, 5, 4): row, column, spread, weight
REGIONS = "regions"  # the condition: (B, 4, 5): used, top, left, side, label, all in [0, 1]
MIXTURES, COMPONENTS = 8, 5
_REGION = 5


def prior_maps(parameters: Tensor, patches: int) -> Tensor:
    """Gaussian mixtures on the grid of patches, each scaled to a largest value of 1.

    Args:
        parameters: (..., components, 4): row, column and deviation in units of the side, weight.
        patches: of the grid, which is taken for square where it can be, else for a line.

    Returns:
        (..., patches).
    """
    side = round(patches**0.5)
    height, width = (side, side) if side * side == patches else (patches, 1)
    rows, columns = ((torch.arange(n, device=parameters.device) + 0.5) / n for n in (height, width))
    row, column, spread, weight = (x[..., None, None] for x in parameters.unbind(-1))
    square = (rows[:, None] - row).square() + (columns - column).square()
    mixture = (weight * torch.exp(-0.5 * square / spread.square())).sum(-3).flatten(-2)
    return mixture / mixture.amax(-1, keepdim=True).clamp(min=1e-12)


@dataclass(frozen=True)
class AttentionPriors(Term):
    """``Σ_l l/L E[(A_lh - M_lh)²]`` over the deeper half of the layers.

    A is what each patch gets in a head, M a random mixture of Gaussians, both scaled to a largest
    value of 1. Windows of an image share its mixture.
    """

    formula = "Σ_{l > L/2} l/L E[(A_lh - M_lh)²], M random Gaussian mixtures"
    teacher_taps = (PatchAttention(),)

    def __call__(self, step: Step) -> Tensor:
        """The weighted squared gap, a scalar >= 0."""
        layers, asked = step.teacher[PatchAttention()], step.condition(PRIORS)
        asked = asked.view(len(asked), MIXTURES, COMPONENTS, 4)
        deep = range(len(layers) // 2, len(layers))
        gaps = [(i + 1) / len(layers) * _gap(layers[i], asked, i) for i in deep]
        return torch.stack(gaps).sum()


def _gap(attention: Tensor, asked: Tensor, layer: int) -> Tensor:
    windows, heads = attention.shape[:2]
    chosen = (torch.arange(heads, device=asked.device) + layer) % MIXTURES
    wanted = prior_maps(asked[:, chosen], attention.shape[-1])
    wanted = wanted.repeat_interleave(windows // len(asked), 0)
    largest = attention.amax(-1, keepdim=True).clamp(min=1e-12)
    return F.mse_loss(attention / largest, wanted)


@dataclass(frozen=True)
class RegionCrossEntropy(Term):
    """``CE(z_p(r(x)), y_r)``: crops of an image, resized, are images of classes of their own.

    Attributes:
        classes: see :class:`dreamquant.synthesis.targets.Regions`, which draws them.
    """

    formula = "CE(z_p(r(x)), y_r), r a resized crop with a label of its own"

    def __call__(self, step: Step) -> Tensor:
        """The mean cross-entropy in nats, a scalar >= 0."""
        asked = step.condition(REGIONS).view(len(step.images), -1, _REGION)
        image, region = asked[..., 0].nonzero(as_tuple=True)
        used = asked[image, region]
        crops = cropped(step.images[image], used[:, 1], used[:, 2], used[:, 3])
        logits = step.teacher.on(crops).output
        labels = (used[:, 4] * logits.shape[1]).long().clamp(max=logits.shape[1] - 1)
        return F.cross_entropy(logits, labels)


def cropped(images: Tensor, top: Tensor, left: Tensor, side: Tensor) -> Tensor:
    """A square region of each image (B, C, H, W), resized to the whole.

    Args:
        images: in any units.
        top: (B,) where the region begins, in units of the image's height.
        left: likewise of its width.
        side: (B,) of the region, likewise of both.
    """
    centre = torch.stack([2 * left + side - 1, 2 * top + side - 1], dim=1)
    scale = torch.eye(2, device=images.device) * side[:, None, None]
    grid = F.affine_grid(
        torch.cat([scale, centre[:, :, None]], 2).to(images),
        list(images.shape),
        align_corners=False,
    )
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)
