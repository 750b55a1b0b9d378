"""The task of a network, by what is on record of it."""

from __future__ import annotations

from dreamquant.evaluation.classes import Classification, MultiLabel, Segmentation
from dreamquant.evaluation.regression import Regression
from dreamquant.evaluation.task import Task
from dreamquant.networks.found import Boxes
from dreamquant.networks.spec import InputSpec


def task_of(spec: InputSpec, boxes: Boxes | None = None) -> Task:
    """The task of a network that expects and gives ``spec``."""
    if spec.task == "classification":
        return Classification()
    if spec.task == "multi-label":
        return MultiLabel()
    if spec.task == "segmentation":
        return Segmentation(spec.num_classes)
    return Regression(spec.outputs, boxes)
