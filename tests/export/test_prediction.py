"""Outputs of every task in words."""

from __future__ import annotations

import pytest
import torch

from dreamquant.export.prediction import tell
from dreamquant.networks.spec import InputSpec


def network(task, classes, **more):
    return InputSpec((3, 4, 4), (0.0,) * 3, (1.0,) * 3, classes, task=task, **more)


def test_labels_are_likely_each_for_itself():
    (told,) = tell(torch.tensor([[-20.0, 20.0, 20.0]]), network("multi-label", 3), 2, None)
    assert {name for name, _ in told.classes} == {"1", "2"}
    assert [share for _, share in told.classes] == pytest.approx([1, 1])


def test_a_segmenter_tells_what_fills_the_image():
    output = torch.zeros(1, 3, 2, 2)
    output[0, 2, 0] = 1
    (told,) = tell(output, network("segmentation", 3, class_names=("sky", "sea", "cat")), 2, None)
    assert dict(told.classes) == {"sky": 0.5, "cat": 0.5}


def test_a_detector_tells_its_boxes():
    output = torch.tensor([[[0.0, 0.0, 0.5, 0.5, 0.9, 1.0], [0.0, 0.0, 0.5, 0.5, 0.1, 1.0]]])
    (told,) = tell(output, network("regression", 2), 5, lambda given: given)
    (box,) = told.as_json()["boxes"]
    assert box == {
        "class": "1",
        "probability": pytest.approx(0.9),
        "box": pytest.approx([0, 0, 0.5, 0.5]),
    }


def test_any_other_output_is_told_in_numbers():
    spec = network("regression", 0, outputs=("a", "b"))
    first, _ = tell({"a": torch.ones(2, 3), "b": torch.zeros(2, 1, 4)}, spec, 1, None)
    assert first.as_json()["outputs"]["a"] == {"shape": [3], "lowest": 1, "mean": 1, "highest": 1}
    assert first.as_json()["outputs"]["b"]["shape"] == [1, 4]
