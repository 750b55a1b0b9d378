"""Tasks whose outputs decide between classes, for an image, for each label, or for each pixel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from dreamquant.evaluation.boxes import average_precision
from dreamquant.evaluation.task import ScoredTask, Task, Truth

IGNORED = 255  # pixels of masks that are ignored, as in Pascal VOC
_RESAMPLED = 500  # number of resampled sets of images for an interval


class Classification(Task):
    """Logits (B, classes): the largest one decides."""

    agreeing = "images whose most likely class is the same"

    def damage(self, given: Any, wanted: Any) -> Tensor:
        """Kullback-Leibler divergence from the wanted probabilities, in nats, mean over images."""
        ours, aim = given.log_softmax(1), wanted.log_softmax(1)
        return F.kl_div(ours, aim, log_target=True, reduction="batchmean")

    def decisions(self, wanted: Any) -> Tensor:
        """Images of each class."""
        return _counted(wanted)

    def agree(self, given: Any, wanted: Any) -> Tensor:
        """Whether the largest logit is the same."""
        return given.argmax(1).eq(wanted.argmax(1)).cpu().float()[:, None]  # type: ignore[no-any-return]


class MultiLabel(ScoredTask):
    """Logits (B, labels), each of which decides by its sign; labels (B, labels) are 0 or 1."""

    agreeing = "decisions, one for each label, that are the same"

    def decisions(self, wanted: Any) -> Tensor:
        """Images without and with each label."""
        on = (wanted > 0).sum(0).cpu()
        return torch.stack([len(wanted) - on, on], 1)

    def agree(self, given: Any, wanted: Any) -> Tensor:
        """The fraction of equal decisions."""
        return ((given > 0) == (wanted > 0)).cpu().float().mean(1, keepdim=True)  # type: ignore[no-any-return]

    def score(self, given: Any, truth: Truth) -> Sequence[Any]:
        """Logits beside the labels."""
        return list(zip(given.float().cpu(), truth, strict=True))

    def scores(self, images: Sequence[Any]) -> dict[str, float]:
        """Average precision over images, mean of the labels that occur; and the fraction of correct
        decisions.
        """
        logits, truth = (torch.stack(each) for each in zip(*images, strict=True))
        present = [label for label in range(truth.shape[1]) if truth[:, label].any()]
        precisions = [
            average_precision(logits[:, label], truth[:, label].bool(), int(truth[:, label].sum()))
            for label in present
        ]
        right = ((logits > 0) == truth.bool()).double().mean().item()
        mean = sum(precisions) / max(len(precisions), 1)
        return {"mean AP": 100 * mean, "labels right": 100 * right}


@dataclass(frozen=True)
class Segmentation(ScoredTask):
    """A map of logits (B, classes, h, w); labels are masks (H, W) of classes, with 255 for ignored
    pixels.

    Attributes:
        classes: number of classes.
    """

    agreeing: ClassVar[str] = "pixels whose most likely class is the same"

    classes: int

    def decisions(self, wanted: Any) -> Tensor:
        """Pixels of each class."""
        return _counted(wanted)

    def agree(self, given: Any, wanted: Any) -> Tensor:
        """The fraction of pixels with the same largest logit."""
        return given.argmax(1).eq(wanted.argmax(1)).float().mean((1, 2)).cpu()[:, None]  # type: ignore[no-any-return]

    def score(self, given: Any, truth: Truth) -> Sequence[Any]:
        """The confusion matrix (classes, classes) of each image."""
        masks = torch.stack(list(truth)).long()
        if given.shape[2:] != masks.shape[1:]:
            given = F.interpolate(given, masks.shape[1:], mode="bilinear")
        return [
            self._confusion(found, mask)
            for found, mask in zip(given.argmax(1).cpu(), masks, strict=True)
        ]

    def _confusion(self, found: Tensor, mask: Tensor) -> Tensor:
        known = mask < self.classes
        pairs = mask[known] * self.classes + found[known]
        return pairs.bincount(minlength=self.classes**2).view(self.classes, self.classes)

    def scores(self, images: Sequence[Any]) -> dict[str, float]:
        """Intersection over union, mean of the classes that occur; and correct pixels."""
        confusion = torch.stack(list(images)).sum(0).double()
        right = confusion.diagonal().sum() / confusion.sum().clamp(min=1)
        return {"mIoU": 100 * float(_miou(confusion)), "pixels right": 100 * float(right)}

    def interval(self, images: Sequence[Any]) -> tuple[float, float]:
        """The interval of the mean intersection over union, by bootstrap."""
        confusions = torch.stack(list(images)).double().flatten(1)
        random = torch.Generator().manual_seed(0)
        drawn = torch.randint(len(images), (_RESAMPLED, len(images)), generator=random)
        counts = torch.zeros(_RESAMPLED, len(images), dtype=torch.float64)
        counts.scatter_add_(1, drawn, torch.ones_like(counts))
        sums = (counts @ confusions).view(-1, self.classes, self.classes)
        ends = torch.quantile(_miou(sums), torch.tensor([0.025, 0.975], dtype=torch.float64))
        return 100 * float(ends[0]), 100 * float(ends[1])


def _counted(logits: Any) -> Tensor:
    """The number of times that each class has the largest logit, (1, classes), on the CPU."""
    return logits.argmax(1).flatten().bincount(minlength=logits.shape[1])[None].cpu()  # type: ignore[no-any-return]


def _miou(confusion: Tensor) -> Tensor:
    """Mean intersection over union (...) of matrices (..., labels, predictions)."""
    right = confusion.diagonal(dim1=-2, dim2=-1)
    union = confusion.sum(-1) + confusion.sum(-2) - right
    there = union > 0
    each = torch.where(there, right / union.clamp(min=1), torch.zeros_like(right))
    return each.sum(-1) / there.sum(-1).clamp(min=1)
