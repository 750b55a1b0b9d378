"""A run of DQDG on one-channel features that are no square: each of its parts acts."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from dreamquant.methods import METHODS
from dreamquant.methods.method import Preset
from dreamquant.networks.spec import InputSpec
from dreamquant.recovery.train import Train
from dreamquant.synthesis.generator_networks import Interleaved
from dreamquant.terms.dual_generators import TimeMaskedDistillation
from stored_runs import advance, run_of

DISTILLED = "student/TimeMaskedDistillation"
SPEC = InputSpec((1, 10, 6), (0.5,), (2.0,), 4)


def spotting():
    """Keywords in 10 frames of 6 coefficients."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = (nn.Conv2d(1, 8, (5, 3)), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten())
        network = nn.Sequential(*layers, nn.Linear(192, 4))
        nn.init.normal_(network[4].weight, std=1.0)
    return network.eval().requires_grad_(False)


def run(*, least=0.5, observed=2):
    numbers = {"batch": 8, "alone": observed, "observe": observed}
    short = Preset(images=numbers, recovery={"Train": {"iterations": 3, "batch": 8}})
    method = METHODS["dqdg"].resolved("quick", SPEC.shape).with_numbers(short)
    (train,) = (part for part in method.recovery if isinstance(part, Train))
    distillation = TimeMaskedDistillation(temperature=20, least=least)
    method = replace(method, recovery=(replace(train, terms=[distillation]),))
    return run_of(method, network=spotting(), spec=SPEC, bits="w4a4")


def test_two_generators_make_images_in_turn_and_both_learn():
    going, stream = run()
    pair = stream.network
    assert isinstance(pair, Interleaved)
    before = {name: value.clone() for name, value in pair.named_parameters()}
    losses = advance(going)
    terms = ("TeacherCrossEntropy", "BatchNormStatistics", "CentreDistance")
    alone = {f"generator/{name}" for name in terms}
    assert alone <= set(losses[0])
    assert alone | {DISTILLED} <= set(losses[-1])
    assert all(not value.equal(before[name]) for name, value in pair.named_parameters())
    batch = stream.batch(8)
    assert batch.images.shape == (8, *SPEC.shape)
    assert batch.targets[0::2].equal(batch.targets[1::2])
    assert not batch.images[0::2].equal(batch.images[1::2])


@pytest.mark.parametrize(("least", "learns"), [(0.0, True), (1.1, False)])
def test_the_student_learns_from_selected_images_alone(least, learns):
    going, _ = run(least=least)
    losses = advance(going)
    distilled = [each[DISTILLED] for each in losses[2:]]
    assert all((loss > 0) == learns for loss in distilled)
