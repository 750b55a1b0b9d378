"""Converts a network's outputs to predictions: classes, labels, areas, boxes or statistics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dreamquant.evaluation.boxes import without_doubles
from dreamquant.networks.found import Boxes
from dreamquant.networks.outputs import tensors_of
from dreamquant.networks.spec import InputSpec


@dataclass(frozen=True)
class Prediction:
    """The prediction of a network for an image.

    Attributes:
        path: path of the file.
        classes: names of classes (or their numbers), the most likely first, with probabilities in
            [0, 1]. For segmentation: with the fraction of the image. For detection: with the
            score of each box.
        boxes: for detection, x1, y1, x2, y2 relative to the image for each of these classes.
        outputs: for other networks, by name: shape, smallest, mean and largest value.
    """

    path: Path
    classes: tuple[tuple[str, float], ...] = ()
    boxes: tuple[tuple[float, ...], ...] = ()
    outputs: tuple[tuple[str, dict[str, Any]], ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The attributes as plain JSON values."""
        told: dict[str, Any] = {"image": str(self.path)}
        if self.outputs:
            return told | {"outputs": dict(self.outputs)}
        classes = [{"class": name, "probability": share} for name, share in self.classes]
        if not self.boxes:
            return told | {"classes": classes}
        placed = [{**each, "box": list(box)} for each, box in zip(classes, self.boxes, strict=True)]
        return told | {"boxes": placed}


def tell(output: Any, spec: InputSpec, top: int, boxes: Boxes | None) -> Iterator[Prediction]:
    """Predictions without a path, one for each image.

    Args:
        output: output for a batch.
        spec: input and outputs of the network.
        top: number of classes or boxes.
        boxes: converts the output to boxes.
    """
    if spec.task == "regression":
        return _boxes(boxes(output), spec, top) if boxes else _numbers(output, spec)
    return _classes(_fractions(output, spec), spec, top)


def _fractions(output: Tensor, spec: InputSpec) -> Tensor:
    """The fraction of the image that each class fills, (B, classes)."""
    if spec.task == "multi-label":
        return output.sigmoid()
    if spec.task == "segmentation":
        found = output.argmax(1).flatten(1)
        ones = torch.ones_like(found, dtype=torch.float32)
        counts = torch.zeros(len(found), spec.num_classes).scatter_add_(1, found, ones)
        return counts / found.shape[1]
    return output.softmax(1)


def _classes(fractions: Tensor, spec: InputSpec, top: int) -> Iterator[Prediction]:
    likely = fractions.topk(min(top, spec.num_classes), dim=1)
    for shares, classes in zip(*map(torch.Tensor.tolist, likely), strict=True):
        yield Prediction(Path(), tuple(zip(_names(classes, spec), shares, strict=True)))


def _boxes(found: Tensor, spec: InputSpec, top: int) -> Iterator[Prediction]:
    for image in found.float():
        best = without_doubles(image)[:top]
        names = _names(best[:, 5].int().tolist(), spec)
        yield Prediction(
            Path(),
            tuple(zip(names, best[:, 4].tolist(), strict=True)),
            tuple(tuple(corners) for corners in best[:, :4].tolist()),
        )


def _numbers(output: Any, spec: InputSpec) -> Iterator[Prediction]:
    for each in zip(*tensors_of(output), strict=True):
        yield Prediction(
            Path(),
            outputs=tuple(
                (name, _described(tensor)) for name, tensor in zip(spec.outputs, each, strict=True)
            ),
        )


def _described(tensor: Tensor) -> dict[str, Any]:
    low, high = tensor.float().aminmax()
    return {
        "shape": list(tensor.shape),
        "lowest": float(low),
        "mean": float(tensor.float().mean()),
        "highest": float(high),
    }


def _names(classes: Sequence[int], spec: InputSpec) -> list[str]:
    return [spec.class_names[each] if spec.class_names else str(each) for each in classes]
