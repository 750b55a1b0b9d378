from __future__ import annotations

import pytest
import torch

from dreamquant.terms.adaptability import Balance, Band
from dreamquant.terms.classes import TeacherCrossEntropy
from dreamquant.terms.contract import Statistics, Term, Weighted
from dreamquant.terms.distillation import (
    DifferenceEntropy,
    KnowledgeDistillation,
    StudentCrossEntropy,
)
from dreamquant.terms.statistics import BatchNormStatistics

TERMS = [
    (BatchNormStatistics(), {"statistics"}),
    (TeacherCrossEntropy(), set()),
    (Band(lower=0.1, upper=0.8), {"student"}),
    (Balance(disagree=0.2, agree=0.1), {"student"}),
    (StudentCrossEntropy(), {"student"}),
    (KnowledgeDistillation(temperature=20), {"student"}),
    (DifferenceEntropy(temperature=20), {"student"}),
]


def named(terms):
    return [type(term).__name__ for term, _ in terms]


@pytest.mark.parametrize(("term", "taps"), TERMS, ids=named(TERMS))
def test_a_term_reads_exactly_the_taps_it_declares(term, taps, step_for):
    torch.manual_seed(0)
    step = step_for(
        term,
        teacher=torch.randn(4, 5),
        student=torch.randn(4, 5),
        targets=torch.tensor([0, 3, 4, 1]),
        statistics=Statistics(*torch.rand(5, 6)),
    )
    loss = term(step)
    assert loss.shape == ()
    assert loss.isfinite()
    assert step.reads == taps == term.taps


def test_an_undeclared_read_is_caught_by_the_step_of_these_tests(step_for):
    class Forgetful(Term):
        def __call__(self, step):
            return step.student.logits.sum()

    term = Forgetful()
    with pytest.raises(AssertionError, match="without declaring the tap 'student'"):
        term(step_for(term, student=torch.zeros(1, 2)))


def test_a_number_times_a_term_is_its_weight():
    term = BatchNormStatistics()
    assert 0.1 * term == Weighted(0.1, term)
    assert (0.1 * term).name == "BatchNormStatistics"


@pytest.mark.parametrize("term", [term for term, _ in TERMS], ids=named(TERMS))
def test_terms_are_frozen_values(term):
    assert term == type(term)(**vars(term))
    assert hash(term) == hash(type(term)(**vars(term)))
    for name in vars(term):
        with pytest.raises(AttributeError, match=name):
            setattr(term, name, 0.0)


def test_the_contract_itself_is_no_loss():
    with pytest.raises(TypeError, match="abstract"):
        Term()
