"""The agreement of a constant answer, computed by hand, and the remark on it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dreamquant.evaluation.classes import Classification, MultiLabel, Segmentation
from dreamquant.evaluation.data import EvaluationSet
from dreamquant.evaluation.majority import constant_agreement, remark
from dreamquant.evaluation.metrics import evaluate
from dreamquant.evaluation.regression import Regression
from dreamquant.networks.spec import InputSpec

FOUR = torch.tensor([[3.0, 1.0], [2.0, 1.0], [5.0, 4.0], [0.0, 1.0]])


def test_most_images_of_a_classifier_have_its_most_frequent_class() -> None:
    assert constant_agreement(Classification().decisions(FOUR)) == 75


def test_labels_are_decided_one_by_one() -> None:
    # The first is on for three of four images, the second for none.
    logits = torch.tensor([[1.0, -1.0], [1.0, -1.0], [1.0, -1.0], [-1.0, -1.0]])
    assert constant_agreement(MultiLabel().decisions(logits)) == pytest.approx(100 * 7 / 8)


def test_pixels_of_a_segmenter_are_counted() -> None:
    logits = torch.zeros(2, 3, 1, 5)
    logits[:, 1] = 1
    logits[0, 2, 0, 0] = 2
    assert constant_agreement(Segmentation(3).decisions(logits)) == 90


def test_values_decide_nothing() -> None:
    assert Regression(("output",)).decisions(FOUR) is None


@pytest.mark.parametrize("constant", [None, 50.0, 90.0])
def test_nothing_is_remarked_while_answers_differ(constant) -> None:
    assert remark(constant, "8 images", given=True) is None


@pytest.mark.parametrize(("given", "way"), [(True, "give labels"), (False, "needs no labels")])
def test_a_remark_names_the_figure_and_the_way(given, way) -> None:
    found = remark(97.25, "8 images", given=given)
    assert "would agree on 97.2 % of 8 images" in found.what
    assert "--mean" in found.remedy
    assert way in found.remedy


@pytest.mark.parametrize(
    ("task", "shape"), [("classification", (2,)), ("segmentation", (2, 1, 1))], ids=lambda x: str(x)
)
def test_an_evaluation_beside_a_teacher_tells_it(task, shape) -> None:
    spec = InputSpec((1, 2, 1), (0.0,), (1.0,), 2, task=task)
    images = EvaluationSet(lambda _: iter([FOUR.numpy()[:, None, :, None]]), 4, None, spec)
    network = nn.Sequential(nn.Flatten(), nn.Unflatten(1, shape))
    assert evaluate(network, images, teacher=network).constant == 75
    assert evaluate(network, images, teacher=network).as_json()["constant_agreement"] == 75
