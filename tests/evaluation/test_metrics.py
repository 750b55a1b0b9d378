from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dreamquant.errors import DataError
from dreamquant.evaluation.data import EvaluationSet, open_images
from dreamquant.evaluation.evaluation import Evaluation
from dreamquant.evaluation.intervals import wilson
from dreamquant.evaluation.metrics import evaluate, evaluate_both
from dreamquant.networks.spec import InputSpec


class Table(nn.Module):
    """Looks up each image's logits by the value of its first pixel."""

    def __init__(self, logits: list[list[float]]) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits, dtype=torch.float32))
        self.frozen = nn.Dropout(0.5).eval()

    def forward(self, images: Tensor) -> Tensor:
        assert not self.training
        assert torch.is_inference_mode_enabled()
        return self.logits[(images[:, 0, 0, 0] * 255).round().long()]


def one_hot(classes: list[int], width: int) -> list[list[float]]:
    return torch.eye(width)[classes].tolist()


def numbered(folder: Path, count: int, classes: int, labels: list[int] | None) -> EvaluationSet:
    """Image i is flat of value i."""
    arrays: dict[str, Any] = {"images": np.arange(count, dtype=np.uint8).reshape(-1, 1, 1)}
    if labels is not None:
        arrays["labels"] = np.array(labels)
    np.savez(folder / "numbered.npz", **arrays)
    return open_images(folder / "numbered.npz", InputSpec((1, 1, 1), (0.0,), (1.0,), classes))


@pytest.mark.parametrize("batch", [1, 3, 100])
def test_accuracy_and_agreement(tmp_path: Path, batch: int) -> None:
    images = numbered(tmp_path, 4, 6, [0, 1, 2, 3])
    student = Table(
        [
            [9, 8, 7, 6, 5, 4],  # right
            [9, 8, 7, 6, 5, 4],  # second
            [9, 8, 5, 7, 6, 4],  # fifth
            [9, 8, 7, 4, 6, 5],  # sixth
        ]
    )
    found = evaluate(student, images, teacher=Table(one_hot([0, 0, 2, 3], 6)), batch=batch)
    assert (found.top1, found.top5, found.n, found.agreement) == (25.0, 75.0, 4, 50.0)
    assert found.ci95 == wilson(1, 4)


def test_few_classes_have_a_top5_of_all(tmp_path: Path) -> None:
    found = evaluate(Table(one_hot([0, 0], 3)), numbered(tmp_path, 2, 3, [1, 2]))
    assert (found.top1, found.top5, found.agreement) == (0.0, 100.0, None)


def test_unlabelled_images_give_agreement_alone(tmp_path: Path) -> None:
    images = numbered(tmp_path, 3, 3, None)
    student = Table(one_hot([0, 1, 2], 3))
    found = evaluate(student, images, teacher=Table(one_hot([0, 1, 0], 3)))
    assert (found.top1, found.top5, found.n) == (None, None, 3)
    assert found.agreement == pytest.approx(200 / 3)
    assert found.ci95 == wilson(2, 3)
    assert evaluate(student, images) == Evaluation(None, None, 3, None, None)


def test_nan_is_wrong_and_agrees_with_nothing(tmp_path: Path) -> None:
    nan = float("nan")
    images = numbered(tmp_path, 3, 3, [0, 0, 0])
    student = Table([[1, nan, nan], [1, 0, 0], [nan, nan, nan]])
    found = evaluate(student, images, teacher=student)
    assert found.top1 == found.top5 == found.agreement == pytest.approx(100 / 3)


def test_equal_logits_give_the_lowest_class(tmp_path: Path) -> None:
    images = numbered(tmp_path, 1, 50, [0])
    found = evaluate(Table([[1.0] * 50]), images)
    assert (found.top1, found.top5) == (100.0, 100.0)


def test_one_pass_evaluates_both_networks(tmp_path: Path) -> None:
    images = numbered(tmp_path, 3, 3, [2, 0, 1])
    student, teacher = Table(one_hot([2, 0, 0], 3)), Table(one_hot([2, 1, 0], 3))
    ours, theirs = evaluate_both(student, teacher, images, batch=2)
    assert ours == evaluate(student, images, teacher=teacher)
    assert theirs == evaluate(teacher, images)
    assert (round(ours.top1), round(theirs.top1), round(ours.agreement)) == (67, 33, 67)


def test_without_a_teacher_there_is_nothing_to_say_of_it(tmp_path: Path) -> None:
    _, theirs = evaluate_both(Table(one_hot([0], 3)), None, numbered(tmp_path, 1, 3, [0]))
    assert theirs == Evaluation(None, None, 1, None, None)


def test_training_flags_are_restored(tmp_path: Path) -> None:
    images = numbered(tmp_path, 2, 3, [0, 1])
    student = Table(one_hot([0, 1], 3))
    assert student.training
    evaluate(student, images, teacher=student)
    assert student.training
    assert not student.frozen.training
    with pytest.raises(DataError, match="batch is 0"):
        evaluate(student, images, batch=0)
    assert student.training


def test_progress_is_told_per_batch(tmp_path: Path) -> None:
    steps: list[int] = []
    images = numbered(tmp_path, 5, 3, None)
    evaluate(Table(one_hot([0] * 5, 3)), images, batch=2, on_batch=steps.append)
    assert steps == [2, 2, 1]


def test_json_has_exactly_the_keys() -> None:
    found = Evaluation(50.0, 100.0, 4, (1.0, 2.0), None).as_json()
    assert json.loads(json.dumps(found)) == {
        "top1": 50.0,
        "top5": 100.0,
        "n": 4,
        "ci95": [1.0, 2.0],
        "agreement": None,
    }
    assert Evaluation(None, None, 4, None, None).as_json()["ci95"] is None


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        # Newcombe (1998), Statistics in Medicine 17, table I, method 3; the last mirrors 0 of 20.
        (81, 263, 25.53, 36.62),
        (15, 148, 6.24, 16.05),
        (0, 20, 0.0, 16.11),
        (1, 29, 0.61, 17.18),
        (20, 20, 83.89, 100.0),
    ],
)
def test_wilson_against_published_values(successes: int, n: int, low: float, high: float) -> None:
    assert wilson(successes, n) == pytest.approx((low, high), abs=0.006)


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (-1, 5), (6, 5)])
def test_wilson_refuses_what_is_no_proportion(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match="successes in"):
        wilson(successes, n)
