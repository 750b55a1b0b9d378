"""Attention in the form of objects, and several objects in an image: SARDFQ (ICCV 2025)."""

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
        patches: number of patches; their grid is assumed to be square if possible, else a line.

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

    A is the attention to each patch in a head, M a random mixture of Gaussians; both are scaled to
    a largest value of 1. All windows of an image have the same mixture.
    """

    formula = "Σ_{l > L/2} l/L E[(A_lh - M_lh)²], M random Gaussian mixtures"
    teacher_taps = (PatchAttention(),)
    every_token = True  # the prior has a place for each

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
    """``CE(z_p(r(x)), y_r)``: resized crops of an image show other classes.

    Attributes:
        classes: number of classes, see :class:`dreamquant.synthesis.targets.Regions`.
    """

    formula = "CE(z_p(r(x)), y_r), r a resized crop with a label of its own"
    every_token = True  # the network runs on other images

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
    """A square region of each image (B, C, H, W) or feature map (B, H, W), resized to its size.

    Args:
        images: in any units.
        top: (B,), upper edge of the region, in units of the image's height.
        left: (B,), left edge, in units of the image's width.
        side: (B,), side of the region, in units of height and width.
    """
    centre = torch.stack([2 * left + side - 1, 2 * top + side - 1], dim=1)
    scale = torch.eye(2, device=images.device) * side[:, None, None]
    planes = images.unsqueeze(1) if images.dim() == 3 else images
    grid = F.affine_grid(
        torch.cat([scale, centre[:, :, None]], 2).to(images),
        list(planes.shape),
        align_corners=False,
    )
    found = F.grid_sample(planes, grid, padding_mode="border", align_corners=False)
    return found.reshape(images.shape)
