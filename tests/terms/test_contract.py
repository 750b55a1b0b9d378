from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from dreamquant.errors import MethodError
from dreamquant.networks.attention_taps import (
    AttentionScores,
    HeadOutputs,
    PatchAttention,
    PatchTokens,
)
from dreamquant.networks.norm_inputs import BatchNormInputs, Statistics
from dreamquant.networks.relu_maps import LastMap
from dreamquant.networks.stage_maps import StageMaps
from dreamquant.networks.taps import Output
from dreamquant.synthesis.targets import Mixtures, Regions
from dreamquant.terms.attention_priors import RegionCrossEntropy
from dreamquant.terms.centres import CALIBRATION
from dreamquant.terms.classes import TeacherCrossEntropy
from dreamquant.terms.contract import Minimizer, Term, Weighted, weighted
from dreamquant.terms.distillation import KnowledgeDistillation, StudentCrossEntropy
from dreamquant.terms.statistics import BatchNormStatistics
from dreamquant.terms.unit_error import CHANNEL_WEIGHTS
from given_steps import every_term, given_view

each_term = pytest.mark.parametrize("term", every_term(), ids=lambda term: type(term).__name__)


def attention():
    """Two layers of two heads, nine patches and a class token."""
    scores = tuple(torch.randn(2, 4, 2, 9, 9))
    return {
        AttentionScores(): scores,
        AttentionScores(heads=2): scores,
        PatchAttention(): tuple(torch.rand(2, 4, 2, 9)),
        HeadOutputs(): tuple(torch.randn(2, 4, 2, 10, 3)),
        PatchTokens(): tuple(torch.randn(2, 4, 9, 3)),
    }


def asked(name):
    """What else is asked of images."""
    random = torch.Generator().manual_seed(0)
    drawn = {kind.name: kind.sample(4, random) for kind in (Mixtures(), Regions())}
    drawn[CHANNEL_WEIGHTS] = torch.ones(1, 5)
    return drawn.get(name, torch.rand(4, 12 if name == CALIBRATION else 2))


def everything(term, step_for):
    """A step that has all that any term reads."""
    torch.manual_seed(0)
    rows = 4 if type(term) is not RegionCrossEntropy else int(asked("regions")[:, ::5].sum())
    perturbed = [given_view(torch.randn(rows, 5), torch.rand(4, 3, 2, 2)) for _ in range(4)]
    last_map = torch.rand(4, 3, 2, 2, requires_grad=True)
    computed = torch.randn(4, 5) * last_map.sum((1, 2, 3))[:, None]
    return step_for(
        term,
        teacher={
            "output": computed,
            "last_map": last_map,
            "statistics": Statistics(*torch.rand(4, 6), sizes=(2, 4)),
            "of_images": Statistics(*torch.rand(2, 4, 6), *torch.rand(2, 6), sizes=(2, 4)),
            "norm_outputs": (torch.randn(4, 3, 2, 2), torch.randn(4, 2, 1, 1)),
            "taps": {
                **attention(),
                StageMaps(): (torch.randn(4, 3, 4, 4), torch.randn(4, 5, 2, 2)),
            },
        },
        student={
            "output": computed + torch.randn(4, 5),
            "last_map": last_map,
            "norm_outputs": (torch.randn(4, 3, 2, 2), torch.randn(4, 2, 1, 1)),
            "taps": {
                **attention(),
                StageMaps(): (torch.randn(4, 3, 4, 4), torch.randn(4, 5, 2, 2)),
            },
        },
        others=perturbed,
        targets=torch.tensor([0, 3, 4, 1]),
        images=torch.randn(4, 1, 8, 8, requires_grad=True),
        latent=torch.randn(4, 7),
        condition=asked,
        student_learns=True,
        random=torch.Generator().manual_seed(0),
        choice=torch.Generator().manual_seed(0),
        reference=lambda measure: torch.rand(2, 2),
    )


@each_term
def test_a_term_reads_exactly_the_taps_it_declares(term, step_for):
    step = everything(term, step_for)
    loss = term(step)
    assert loss.shape == ()
    assert loss.isfinite()
    # The teacher's output needs no tap.
    assert step.teacher.reads - {Output()} == set(term.teacher_taps)
    assert step.student.reads == set(term.student_taps)


@each_term
def test_a_term_has_a_formula_for_its_methods_page(term):
    assert type(term).__doc__
    assert term.formula


def test_taps_of_terms_are_each_once_in_their_order():
    @dataclass(frozen=True)
    class Both(Term):
        teacher_taps = (LastMap(), BatchNormInputs())
        student_taps = (LastMap(),)

        def __call__(self, step):
            return step.images.sum()

    part = Minimizer()
    part.terms = [BatchNormStatistics(), 2.0 * Both(), StudentCrossEntropy(), BatchNormStatistics()]
    assert part.teacher_taps == (BatchNormInputs(), LastMap())
    assert part.student_taps == (LastMap(), Output())
    part.terms = [TeacherCrossEntropy()]
    assert part.student_taps == ()


def test_an_undeclared_read_is_refused_by_the_step_of_these_tests(step_for):
    class Forgetful(Term):
        def __call__(self, step):
            return step.student.output.sum()

    term = Forgetful()
    with pytest.raises(MethodError, match=r"Forgetful reads Output\(\) of the student"):
        term(step_for(term, student=torch.zeros(1, 2)))


def test_a_number_times_a_term_is_its_weight():
    term = BatchNormStatistics()
    assert 0.1 * term == Weighted(0.1, term)
    assert (0.1 * term).name == "BatchNormStatistics"
    assert weighted([term, 2 * term]) == (Weighted(1.0, term), Weighted(2, term))


@each_term
def test_terms_are_frozen_values(term):
    assert term == type(term)(**vars(term))
    assert hash(term) == hash(type(term)(**vars(term)))
    for name in vars(term):
        with pytest.raises(AttributeError, match=name):
            setattr(term, name, 0.0)


def test_terms_of_other_numbers_differ():
    assert KnowledgeDistillation(20) != KnowledgeDistillation(4)


def test_the_contract_itself_is_no_loss():
    with pytest.raises(TypeError, match="abstract"):
        Term()
