"""Agreement and scores of every task, compared with values computed by hand."""

from __future__ import annotations

import pytest
import torch

from dreamquant.evaluation.boxes import average_precision, match, overlaps, without_doubles
from dreamquant.evaluation.classes import Classification, MultiLabel, Segmentation
from dreamquant.evaluation.regression import Regression


def test_overlap_of_boxes():
    first = torch.tensor([[0.0, 0.0, 2.0, 2.0]])
    second = torch.tensor([[1.0, 1.0, 3.0, 3.0], [4.0, 4.0, 5.0, 5.0], [0.0, 0.0, 2.0, 2.0]])
    assert overlaps(first, second)[0].tolist() == pytest.approx([1 / 7, 0, 1])


def test_of_boxes_that_cover_each_other_the_most_certain_of_a_class_stays():
    boxes = torch.tensor(
        [
            [0.0, 0.0, 1.0, 1.0, 0.5, 0.0],
            [0.0, 0.0, 1.0, 0.9, 0.9, 0.0],
            [0.0, 0.0, 1.0, 1.0, 0.4, 1.0],
            [0.0, 0.0, 1.0, 1.0, 0.0, 2.0],
        ]
    )
    assert without_doubles(boxes)[:, 4].tolist() == pytest.approx([0.9, 0.4])


def test_an_object_is_found_once():
    truth = torch.tensor([[0.0, 0.0, 0.0, 1.0, 1.0]])
    boxes = torch.tensor([[0, 0, 1, 0.9, 0.9, 0], [0, 0, 1, 1, 0.8, 0], [0, 0, 1, 1, 0.7, 1]])
    assert match(boxes, truth).hits.tolist() == [True, False, False]
    assert match(boxes, truth[:0]).hits.tolist() == [False] * 3


def test_average_precision_by_hand():
    # Precisions 1, 1/2, 2/3 at recalls 1/2, 1/2, 1: 51 recalls read 1, the other 50 read 2/3.
    found = average_precision(
        torch.tensor([0.9, 0.8, 0.7]), torch.tensor([True, False, True]), positives=2
    )
    assert found == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert average_precision(torch.empty(0), torch.empty(0, dtype=torch.bool), 3) == 0


def test_boxes_of_a_detector_are_scored():
    task = Regression(("output",), boxes=lambda output: output)
    truth = [torch.tensor([[1.0, 0.0, 0.0, 0.5, 0.5]]), torch.empty(0, 5)]
    right = torch.tensor([[[0.0, 0.0, 0.5, 0.5, 0.9, 1.0]], [[0.0, 0.0, 0.5, 0.5, 0.1, 1.0]]])
    assert task.scores(task.score(right, truth)) == {"mAP50": pytest.approx(100)}
    wrong = right.flip(0)
    wrong[0, 0, 5] = 0
    assert task.scores(task.score(wrong, truth)) == {"mAP50": 0}


def test_pixels_of_a_segmenter_are_scored():
    task = Segmentation(classes=3)
    logits = torch.zeros(1, 3, 2, 2)
    logits[0, 1, 0] = 1  # above: class 1; below: class 0
    mask = torch.tensor([[[1, 0], [0, 255]]])
    scores = task.scores(task.score(logits, mask))
    # Class 0: one right of two, class 1 likewise; class 2 occurs nowhere.
    assert scores == {"mIoU": pytest.approx(50), "pixels right": pytest.approx(200 / 3)}
    low, high = task.interval(task.score(logits, mask))
    assert low == high == pytest.approx(50)


def test_labels_decide_each_for_itself():
    task = MultiLabel()
    given = torch.tensor([[1.0, -1.0], [-1.0, 2.0]])
    rows = task.agree(given, torch.tensor([[2.0, -3.0], [1.0, 1.0]]))
    assert task.agreement(rows).percent == pytest.approx(75)
    scores = task.scores(task.score(given, torch.tensor([[1, 0], [0, 1]])))
    assert scores == {"mean AP": pytest.approx(100), "labels right": 100}


def test_agreement_of_a_classifier_counts_images():
    rows = Classification().agree(torch.eye(4), torch.eye(4).flip(0))
    assert Classification().agreement(rows).percent == 0
    agreement = Classification().agreement(torch.tensor([[1.0], [1.0], [0.0], [1.0]]))
    assert agreement.percent == 75
    assert 0 < agreement.ci95[0] < 75 < agreement.ci95[1] < 100


def test_agreement_of_tensors_is_relative_to_their_own_spread():
    task = Regression(("a", "b"))
    wanted = {"a": torch.tensor([[0.0], [2.0]]), "b": torch.tensor([[10.0, 30.0], [30.0, 10.0]])}
    given = {"a": wanted["a"] + 0.5, "b": wanted["b"]}
    agreement = task.agreement(task.agree(given, wanted))
    # The deviation of a is 1, and 0.5 from it is half.
    assert agreement.outputs == {"a": pytest.approx(50), "b": 100}
    assert agreement.percent == pytest.approx(75)
    scaled = {name: 1000 * each for name, each in given.items()}
    aim = {name: 1000 * each for name, each in wanted.items()}
    assert task.agreement(task.agree(scaled, aim)).percent == pytest.approx(75)


@pytest.mark.parametrize("given", [torch.full((2, 1), torch.nan), torch.tensor([[9.0], [-9.0]])])
def test_worse_than_a_constant_is_no_agreement(given):
    task = Regression(("output",))
    assert task.agreement(task.agree(given, torch.tensor([[0.0], [2.0]]))).percent == 0
