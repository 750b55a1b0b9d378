"""Views give a term what it declares, and reading the teacher does not change it."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from dreamquant.errors import MethodError, NetworkError
from dreamquant.networks.attention_taps import AttentionTap
from dreamquant.networks.module_outputs import NormOutputs, Outputs
from dreamquant.networks.norm_inputs import BatchNormInputs
from dreamquant.networks.relu_maps import LastMap
from dreamquant.networks.taps import Output
from dreamquant.terms.activation_maps import CamAlignment
from dreamquant.terms.attention import CENTRE, pooled
from dreamquant.terms.attention_priors import RegionCrossEntropy
from dreamquant.terms.centres import CentreDistance
from dreamquant.terms.contract import Term
from dreamquant.terms.feature_relations import FeatureRelations
from dreamquant.terms.outputs import Activity
from dreamquant.terms.unit_error import UnitError
from dreamquant.training.watched import Watched
from given_steps import every_term
from tiny_runs import players_of, step_on, tiny_network

TAPS = (BatchNormInputs(), LastMap())
# They want other conditions, other maps or a student's gradient; each has tests of its own.
TESTED_ELSEWHERE = (
    Activity,
    CamAlignment,
    CentreDistance,
    FeatureRelations,
    RegionCrossEntropy,
    UnitError,
)


def network():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 6, 3, stride=2, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 3),
    )
    net(torch.randn(64, 1, 8, 8))
    return net.eval().requires_grad_(False)


def looking_at(net, images, seed=1):
    return step_on(players_of(net, teacher_taps=TAPS), images, seed=seed)


@pytest.mark.parametrize(
    "ask",
    [
        lambda step: step.teacher.in_training_mode,
        lambda step: step.teacher.under_weight_noise(0.1),
        lambda step: step.teacher.on(step.images.flip(3)),
        lambda step: step.reference(lambda noise: noise.teacher.output),
    ],
    ids=["training mode", "weight noise", "other images", "noise images"],
)
def test_teacher_is_untouched(ask):
    net = network()
    before = copy.deepcopy(net.state_dict())
    step = looking_at(net, torch.randn(5, 1, 8, 8))
    clean = step.teacher.output.clone()
    asked = ask(step)
    _ = asked if isinstance(asked, torch.Tensor) else asked.output
    after = net.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert not any(module.training for module in net.modules())
    assert not any(module._forward_pre_hooks for module in net.modules())
    assert torch.equal(looking_at(net, step.images).teacher.output, clean)


def test_training_mode_is_what_a_network_in_training_computes():
    net, images = network(), torch.randn(5, 1, 8, 8)
    wanted = copy.deepcopy(net)
    wanted.train()
    torch.testing.assert_close(
        looking_at(net, images).teacher.in_training_mode.output, wanted(images)
    )


def test_the_last_map_is_that_of_the_same_pass():
    net, images = network(), torch.randn(5, 1, 8, 8)
    teacher = looking_at(net, images).teacher
    assert teacher[LastMap()].equal(net[:6](images))
    assert teacher.output.equal(net(images))
    assert teacher[Output()] is teacher.output


def test_weight_noise_is_as_large_as_asked_and_new_each_time():
    net, images = network(), torch.randn(5, 1, 8, 8)
    step = looking_at(net, images)
    assert torch.equal(step.teacher.under_weight_noise(0.0).output, step.teacher.output)
    first, second = (step.teacher.under_weight_noise(0.05).output for _ in range(2))
    assert not torch.equal(first, second)
    little = (step.teacher.under_weight_noise(0.001).output - step.teacher.output).abs().mean()
    much = (step.teacher.under_weight_noise(0.5).output - step.teacher.output).abs().mean()
    assert much > 20 * little


def test_perturbed_answers_pass_gradients_to_the_images():
    images = torch.randn(4, 1, 8, 8, requires_grad=True)
    teacher = looking_at(network(), images).teacher
    answers = (teacher.on(images * 2), teacher.under_weight_noise(0.1), teacher.in_training_mode)
    for answer in answers:
        (gradient,) = torch.autograd.grad(
            pooled(answer[LastMap()]).sum(), images, retain_graph=True
        )
        assert gradient.abs().sum() > 0


def test_noise_reference_is_measured_once_and_the_same_in_every_run():
    calls = []

    def measure(step):
        calls.append(step.images.clone())
        return step.teacher.output

    step = looking_at(network(), torch.randn(5, 1, 8, 8))
    assert step.reference(measure) is step.reference(measure)
    again = looking_at(network(), torch.randn(5, 1, 8, 8), seed=2).reference(measure)
    assert len(calls) == 2
    assert torch.equal(calls[0], calls[1])
    assert torch.equal(step.reference(measure), again)
    assert abs(calls[0].mean()) < 0.2
    assert not again.requires_grad


# ------------------------------------------------------------------- what is declared


def asked_by(term):
    """A step of a run whose networks tap everything, as a term sees it."""
    tapped = (*TAPS, Outputs("0"), BatchNormInputs(per_image=True), NormOutputs())
    players = players_of(tiny_network(), None, tapped, tapped)
    conditions = {CENTRE: torch.rand(4, 2)}
    step = step_on(players, torch.randn(4, 1, 8, 8), conditions=conditions)
    return step.seen_by(term)


def convolutional_terms():
    """Terms of this network, which has no attention."""
    return [
        term
        for term in every_term()
        if type(term) not in TESTED_ELSEWHERE
        and not any(isinstance(tap, AttentionTap) for tap in term.teacher_taps)
    ]


def undeclared(side):
    """Each term that reads something of this network, and each tap that it may forget."""
    return [
        pytest.param(term, tap, id=f"{type(term).__name__}-{tap}")
        for term in convolutional_terms()
        for tap in getattr(term, f"{side}_taps")
    ]


@pytest.mark.parametrize("term", convolutional_terms(), ids=lambda term: type(term).__name__)
def test_a_term_gets_what_it_declares(term):
    assert term(asked_by(term)).isfinite()


@pytest.mark.parametrize(
    ("side", "term", "tap"),
    [
        pytest.param(side, *case.values, id=f"{side}-{case.id}")
        for side in ("teacher", "student")
        for case in undeclared(side)
    ],
)
def test_a_term_that_reads_what_it_does_not_declare_is_refused_by_name(
    side, term, tap, monkeypatch
):
    left = tuple(other for other in getattr(term, f"{side}_taps") if other != tap)
    monkeypatch.setattr(type(term), f"{side}_taps", left)
    with pytest.raises(MethodError) as e:
        term(asked_by(term))
    name = type(term).__name__
    assert e.value.what == f"{name} reads {tap} of the {side} without declaring it"
    assert e.value.remedy == f"list it in the term's {side}_taps"


class Perturbing(Term):
    """Asks the teacher for more than the term declares, on other images and in other ways."""

    def __init__(self, ask):
        self.ask = ask

    def __call__(self, step):
        return self.ask(step.teacher)[LastMap()].sum()


@pytest.mark.parametrize(
    "ask",
    [
        lambda teacher: teacher.in_training_mode,
        lambda teacher: teacher.under_weight_noise(0.1),
        lambda teacher: teacher.on(torch.zeros(2, 1, 8, 8)),
    ],
    ids=["training mode", "weight noise", "other images"],
)
def test_other_passes_of_the_teacher_give_no_more_than_is_declared(ask, monkeypatch):
    term = Perturbing(ask)
    with pytest.raises(MethodError, match=r"Perturbing reads LastMap\(\) of the teacher"):
        term(asked_by(term))
    monkeypatch.setattr(Perturbing, "teacher_taps", (LastMap(),))
    assert term(asked_by(term)).isfinite()


def test_a_noise_reference_gives_no_more_than_the_term_declares():
    class Referring(Term):
        def __call__(self, step):
            return step.reference(lambda noise: noise.teacher[LastMap()].sum())

    with pytest.raises(MethodError, match="Referring reads LastMap"):
        Referring()(asked_by(Referring()))


def test_the_teachers_output_needs_no_tap_and_the_students_does():
    term = Perturbing(None)
    step = asked_by(term)
    assert step.teacher.output.shape == (4, 5)
    with pytest.raises(MethodError, match=r"Perturbing reads Output\(\) of the student"):
        _ = step.student.output


def test_a_tap_that_collected_nothing_is_told():
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).eval()
    step = step_on(players_of(net), torch.zeros(2, 1, 8, 8))
    with pytest.raises(MethodError, match=r"LastMap\(\) of the teacher collected nothing"):
        _ = step.teacher[LastMap()]


def test_a_network_that_lacks_what_a_tap_reads_is_refused_before_a_run():
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 3), nn.ReLU()).eval()
    example = torch.zeros(2, 1, 8, 8)
    for tap, lack in ((LastMap(), "no ReLU"), (BatchNormInputs(), "it has no batch norm")):
        with pytest.raises(NetworkError, match=lack):
            Watched(net, example, [tap])
    assert Watched(net, example, [Output()]).read(example)[0].shape == (2, 3)
