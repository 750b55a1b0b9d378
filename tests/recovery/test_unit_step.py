"""Terms on one unit of both networks."""

from dataclasses import dataclass

import pytest
import torch

from dreamquant.errors import MethodError, NetworkError
from dreamquant.networks.module_outputs import NormOutputs
from dreamquant.networks.taps import Output
from dreamquant.quantization.scheme import Bits, Scheme
from dreamquant.recovery.reconstruct import Reconstruct
from dreamquant.terms.contract import Term
from dreamquant.terms.distillation import StudentCrossEntropy
from dreamquant.terms.unit_error import UnitError

FEW = {"count": 8, "batch": 4, "steps": 2}
SEEN = []


@dataclass(frozen=True)
class InsideError(Term):
    """Squared error of what leaves the batch norms of a unit."""

    teacher_taps = (NormOutputs(),)
    student_taps = (NormOutputs(), Output())
    any_output = True

    def __call__(self, step):
        pairs = zip(step.teacher[NormOutputs()], step.student[NormOutputs()], strict=True)
        gaps = [(p - q).square().mean() for p, q in pairs]
        SEEN.append((step.images.shape, len(gaps), step.teacher.output.shape))
        return torch.stack(gaps).sum() + (step.student.output - step.teacher.output).abs().mean()


@dataclass(frozen=True)
class UndeclaredError(Term):
    any_output = True

    def __call__(self, step):
        return step.student[NormOutputs()][0].mean()


def suited(part, network, example):
    return part.suited(network, example, Scheme(Bits(3, 3)))


def block_phase(part, bench, images):
    """The phase of the residual block."""
    return next(p for p in part.phases(bench, images) if p.name == "reconstructing block")


@pytest.mark.parametrize("placement", ["relu-output", "layer-input"])
def test_a_term_reads_inside_a_block_of_both_networks(
    make_network, make_bench, given_images, pool, placement
):
    bench = make_bench(make_network(), placement=placement)
    part = Reconstruct(terms=[UnitError(), 2 * InsideError()], **FEW)
    SEEN.clear()
    losses = block_phase(part, bench, given_images(bench, pool)).step()
    assert set(losses) == {"student/UnitError", "student/InsideError", "student/undecided"}
    assert losses["student/InsideError"] > 0
    # Two batch norms of the block alone, of the four images that a step takes.
    assert SEEN[-1] == ((4, 6, 8, 8), 2, (4, 6, 8, 8))


def test_what_a_term_reads_undeclared_in_a_block_is_refused_by_name(
    make_network, make_bench, given_images, pool
):
    bench = make_bench(make_network())
    phase = block_phase(
        Reconstruct(terms=[UndeclaredError()], **FEW), bench, given_images(bench, pool)
    )
    with pytest.raises(MethodError, match=r"UndeclaredError reads NormOutputs\(\) of the student"):
        phase.step()


def test_units_without_what_a_term_reads_are_refused_before_the_run(make_network, pool):
    part = Reconstruct(terms=[InsideError()])
    with pytest.raises(NetworkError, match=r"the unit 'stem' cannot be reconstructed.*batch norms"):
        suited(part, make_network(), pool[:2])


def test_terms_that_need_classes_are_refused_before_the_run(make_network, pool):
    with pytest.raises(MethodError, match=r"block reconstruction.*StudentCrossEntropy"):
        suited(Reconstruct(terms=[StudentCrossEntropy()]), make_network(), pool[:2])
