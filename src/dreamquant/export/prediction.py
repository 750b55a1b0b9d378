"""A network's outputs in words: classes, labels, what fills the image, boxes, or bare numbers."""

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
    """What a network says of an image.

    Attributes:
        path: of the file.
        classes: names, or numbers for classes without names, the likeliest first, with their
            probability in [0, 1]; of a segmenter with the fraction of the image that they fill; of
            a detector with the score of each box.
        boxes: of a detector, x1, y1, x2, y2 in units of the image for each of these classes.
        outputs: of any other network, by name: shape, lowest, mean and highest value.
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
    """Predictions without a path, one an image.

    Args:
        output: for a batch.
        spec: of the network.
        top: so many classes or boxes.
        boxes: makes boxes of the output.
    """
    if spec.task == "tensors":
        return _boxes(boxes(output), spec, top) if boxes else _numbers(output, spec)
    return _classes(_fractions(output, spec), spec, top)


def _fractions(output: Tensor, spec: InputSpec) -> Tensor:
    """How much of each class there is, (B, classes)."""
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
