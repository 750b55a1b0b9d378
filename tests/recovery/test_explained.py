"""The share of a teacher's outputs that a student's explain."""

import pytest
import torch

from dreamquant.recovery.explained import Explained


def explained(teacher, student, size=7):
    measure = Explained()
    for p, q in zip(teacher.split(size), student.split(size), strict=True):
        measure.add(p, q)
    return measure.percent


@pytest.fixture
def outputs():
    torch.manual_seed(0)
    teacher = torch.randn(50, 10) + 5 * torch.randn(10)
    return teacher, teacher + 0.5 * torch.randn(50, 10)


def test_it_is_the_squared_correlation_about_the_teachers_mean(outputs):
    teacher, student = (each.double() for each in outputs)
    p, q = (each - teacher.mean(0) for each in (teacher, student))
    wanted = 100 * float((p * q).sum() ** 2 / p.square().sum() / q.square().sum())
    assert 50 < wanted < 95
    assert explained(*outputs) == pytest.approx(wanted)


def test_batches_of_any_size_give_the_same(outputs):
    assert explained(*outputs, size=50) == pytest.approx(explained(*outputs, size=1))


def test_the_scale_of_the_students_outputs_about_the_mean_does_not_count(outputs):
    teacher, _ = outputs
    mean = teacher.mean(0)
    assert explained(teacher, mean + 0.3 * (teacher - mean)) == pytest.approx(100)


def test_a_shift_of_the_students_outputs_counts(outputs):
    teacher, _ = outputs
    assert explained(teacher, teacher + 1) < 60


@pytest.mark.parametrize("student", ["the mean", "opposite", "constant"])
def test_a_student_that_follows_nothing_explains_nothing(outputs, student):
    teacher, _ = outputs
    mean = teacher.mean(0).expand_as(teacher)
    students = {"the mean": mean, "opposite": 2 * mean - teacher, "constant": 0 * teacher}
    assert explained(teacher, students[student]) == pytest.approx(0, abs=1e-4)


def test_a_teacher_whose_outputs_never_change_leaves_nothing_to_explain():
    same = torch.ones(8, 3)
    assert explained(same, same) == 0


def test_it_goes_on_from_a_state(outputs):
    teacher, student = outputs
    first, second = Explained(), Explained()
    first.add(teacher[:20], student[:20])
    second.load_state_dict(first.state_dict())
    second.add(teacher[20:], student[20:])
    assert second.percent == explained(teacher, student, size=50)


def test_outputs_of_any_shape_are_taken(outputs):
    teacher, student = (each.view(50, 2, 5) for each in outputs)
    assert explained(teacher, student) == pytest.approx(explained(*outputs))
