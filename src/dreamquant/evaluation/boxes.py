"""Boxes of objects: overlap, non-maximum suppression, and average precision at an overlap of 0.5.

No library provides this without large dependencies: mAP of torchmetrics needs torchvision and
pycocotools, which must be compiled.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

_OVERLAP = 0.5  # smallest overlap with an object's box for a correct detection
_DOUBLE = (
    0.45  # above this overlap of two boxes of a class, the one with the lower score is dropped
)
_LEAST_SCORE, _MOST_BOXES = 0.001, 100  # lowest score, and most boxes of an image, as in COCO
_CANDIDATES = 400
_RECALLS = 101  # number of recalls at which COCO reads the precision


class Found(NamedTuple):
    """The boxes of one image, matched with its labels.

    Attributes:
        scores: (K,) scores of the boxes.
        classes: (K,) classes of the boxes, int64.
        hits: (K,) whether each box is the first one that is matched with an object.
        truth: (M,) classes of the labelled objects, int64.
    """

    scores: Tensor
    classes: Tensor
    hits: Tensor
    truth: Tensor


def overlaps(first: Tensor, second: Tensor) -> Tensor:
    """Intersection over union (N, M) of boxes (N, 4) and (M, 4): x1, y1, x2, y2."""
    low = torch.maximum(first[:, None, :2], second[None, :, :2])
    high = torch.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = (high - low).clamp(min=0).prod(2)
    areas = [(box[:, 2:] - box[:, :2]).clamp(min=0).prod(1) for box in (first, second)]
    return shared / (areas[0][:, None] + areas[1][None] - shared).clamp(min=1e-12)


def without_doubles(boxes: Tensor) -> Tensor:
    """The boxes (K, 6) of one image after non-maximum suppression within each class.

    Args:
        boxes: (N, 6): x1, y1, x2, y2 in units of the image, score, class.
    """
    boxes = boxes[boxes[:, 4] > _LEAST_SCORE]
    boxes = boxes[boxes[:, 4].argsort(descending=True, stable=True)[:_CANDIDATES]]
    same = boxes[:, None, 5] == boxes[None, :, 5]
    covers = ((overlaps(boxes[:, :4], boxes[:, :4]) > _DOUBLE) & same).triu(1)
    kept = torch.ones(len(boxes), dtype=torch.bool)
    for index in range(len(boxes)):
        if kept[index]:
            kept &= ~covers[index]
    return boxes[kept][:_MOST_BOXES]


def match(boxes: Tensor, truth: Tensor) -> Found:
    """Match each object with the box of its class with the highest score and enough overlap.

    Args:
        boxes: (K, 6) boxes of :func:`without_doubles`, highest score first.
        truth: (M, 5): class, x1, y1, x2, y2.
    """
    common = overlaps(boxes[:, :4], truth[:, 1:])
    common[boxes[:, None, 5] != truth[None, :, 0]] = 0
    hits = torch.zeros(len(boxes), dtype=torch.bool)
    for index in range(len(boxes) if len(truth) else 0):
        best = int(common[index].argmax())
        if common[index, best] >= _OVERLAP:
            hits[index] = True
            common[:, best] = 0
    return Found(boxes[:, 4], boxes[:, 5].long(), hits, truth[:, 0].long())


def mean_average_precision(images: Sequence[Found]) -> float:
    """Mean of the average precision over all classes that occur, in [0, 1]."""
    scores, classes, hits, truth = (torch.cat(parts) for parts in zip(*images, strict=True))
    precisions = [
        average_precision(scores[classes == label], hits[classes == label], count)
        for label, count in enumerate(truth.bincount().tolist())
        if count
    ]
    return sum(precisions) / max(len(precisions), 1)


def average_precision(scores: Tensor, hits: Tensor, positives: int) -> float:
    """The mean over 101 recalls of the best precision at this recall or a higher one.

    Args:
        scores: (K,) scores of detections.
        hits: (K,) whether each detection is correct.
        positives: number of labelled objects, at least 1.
    """
    if not len(scores):
        return 0.0
    right = hits[scores.argsort(descending=True, stable=True)].double().cumsum(0)
    precision = right / torch.arange(1, len(right) + 1)
    best = precision.flip(0).cummax(0).values.flip(0)
    at = torch.searchsorted(right / positives, torch.linspace(0, 1, _RECALLS).double() - 1e-9)
    return float(torch.cat([best, best.new_zeros(1)])[at].mean())
