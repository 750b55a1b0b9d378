"""Lost, gained and changed predictions, compared with counts by hand."""

from __future__ import annotations

import torch

from dreamquant.evaluation.answers import Answers


def answers(student, teacher):
    collected = Answers(4)
    for pair in zip(torch.tensor(student).split(3), torch.tensor(teacher).split(3), strict=True):
        collected.add(*pair)
    return collected


def test_with_labels_rights_and_wrongs_are_counted():
    found = answers([0, 1, 2, 1, 3, 0], [0, 1, 1, 2, 3, 3]).as_json(
        torch.tensor([0, 1, 1, 2, 3, 0])
    )
    assert (found["n"], found["labelled"]) == (6, True)
    assert found["outcomes"] == {"both_right": 3, "lost": 2, "gained": 1, "both_wrong": 0}
    assert found["classes"] == [
        {"class": 0, "n": 2, "teacher": 1, "student": 2},
        {"class": 1, "n": 2, "teacher": 2, "student": 1},
        {"class": 2, "n": 1, "teacher": 1, "student": 0},
        {"class": 3, "n": 1, "teacher": 1, "student": 1},
    ]
    assert found["changes"] == [
        {"truth": 0, "answer": 3, "teacher": 1, "student": 0},
        {"truth": 1, "answer": 2, "teacher": 0, "student": 1},
        {"truth": 2, "answer": 1, "teacher": 0, "student": 1},
    ]


def test_without_labels_the_teachers_answer_is_the_measure():
    found = answers([0, 1, 1], [0, 1, 2]).as_json(None)
    assert not found["labelled"]
    assert found["outcomes"] == {"both_right": 2, "lost": 1, "gained": 0, "both_wrong": 0}
    assert found["changes"] == [{"truth": 2, "answer": 1, "teacher": 0, "student": 1}]


def test_an_answer_that_is_none_is_wrong_and_no_class():
    found = answers([-1, 1, 1], [0, -1, 1]).as_json(torch.tensor([0, 1, 1]))
    assert found["outcomes"] == {"both_right": 1, "lost": 1, "gained": 1, "both_wrong": 0}
    assert found["changes"] == []
