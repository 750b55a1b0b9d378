"""Measurements at the end, compared with values computed by hand."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from dreamquant.diagnostics import images
from dreamquant.diagnostics.images import adaptability, centre_spread, observed
from dreamquant.evaluation.data import open_images
from dreamquant.methods import find_method
from dreamquant.methods.method import Preset
from dreamquant.networks import demo
from dreamquant.networks.relu_maps import LastMap
from dreamquant.networks.taps import Output
from dreamquant.terms.adaptability import Band, normalised_disagreement_entropy
from dreamquant.terms.contract import Weighted
from dreamquant.training.phase import run_to_the_end
from dreamquant.training.watched import View


def seen(activation, classes):
    return SimpleNamespace(teacher=given(torch.eye(3)[classes], {LastMap(): activation}))


def given(output, values):
    """What a network answers."""
    return View(lambda: (output, values), allowed=(Output(), *values), owner="", reader="")


def spots(*places):
    """Maps (B, 1, 4, 4) that are lit at one place each."""
    maps = torch.zeros(len(places), 1, 4, 4)
    for image, (row, column) in zip(maps, places, strict=True):
        image[0, row, column] = 2
    return maps


def test_spread_by_hand():
    one = seen(spots((0, 0), (0, 2)), [1, 1])
    two = seen(spots((3, 3), (1, 1), (1, 1)), [0, 2, 2])
    found = centre_spread([one, two])
    # Two centres half a side apart: each lies 1/4 from their mean.
    apart = (2 * 0.25**2 / 1) ** 0.5
    assert found["per_class"] == {"1": pytest.approx(apart), "2": 0}
    assert found["centre_spread"] == pytest.approx((2 * 0.25**2 / 2) ** 0.5)


def test_spread_needs_two_images_of_a_class():
    assert centre_spread([seen(spots((0, 0), (3, 3)), [0, 1])]) == {
        "centre_spread": None,
        "per_class": {},
    }


def answers(count=200):
    random = torch.Generator().manual_seed(0)
    teacher, student = (torch.randn(count, 10, generator=random) for _ in range(2))
    step = SimpleNamespace(
        teacher=SimpleNamespace(output=teacher), student=SimpleNamespace(output=student)
    )
    return step, normalised_disagreement_entropy(teacher, student)


def test_the_histogram_has_every_image_once():
    step, h = answers()
    found = adaptability([step, step], [Weighted(1.0, Band(lower=0.4, upper=0.6))])
    assert found["counts"] == (2 * np.histogram(h.numpy(), 20, (0, 1))[0]).tolist()
    assert found["edges"][0] == 0
    assert found["edges"][-1] == 1
    assert (found["lower"], found["upper"], found["bounds_of"]) == (0.4, 0.6, "the method")
    assert found["below"] == pytest.approx((h < 0.4).float().mean().item())
    assert found["above"] == pytest.approx((h > 0.6).float().mean().item())
    assert found["below"] + found["within"] + found["above"] == pytest.approx(1)


def test_a_method_without_a_band_is_measured_against_adadfqs():
    found = adaptability([answers()[0]], [])
    assert (found["lower"], found["upper"], found["bounds_of"]) == (0.1, 0.8, "adadfq")


@pytest.fixture
def diagnosed_with(network, begin):
    """``diagnosed_with(images)``: what is diagnosed of a run that is over."""
    few = Preset(
        images={"batch": 4, "alone": 1, "observe": 1},
        recovery={"Train": {"batch": 4, "iterations": 1}},
    )
    begun = begin(find_method("gdfq").resolved("quick", (1, 8, 8)).with_numbers(few))
    run_to_the_end(begun.run, [])
    teacher = observed(network, torch.zeros(2, 1, 8, 8))
    return lambda images: begun.diagnose(teacher, images)


def test_without_real_images_their_places_are_empty(diagnosed_with):
    found = diagnosed_with(None)
    assert found["attention"]["real"] is None
    assert found["inconsistency"]["real"] is None
    assert sum(found["adaptability"]["counts"]) == 768


@pytest.mark.parametrize(("count", "there"), [(1, False), (2, True), (33, True)])
def test_one_real_image_has_no_statistics_of_its_own(count, there, diagnosed_with):
    found = diagnosed_with(open_images(demo.HELD_OUT, demo.INPUT, limit=count))
    assert (found["attention"]["real"] is not None) == there
    assert (found["inconsistency"]["real"] is not None) == there


def test_equal_runs_are_diagnosed_alike(diagnosed_with, digits):
    assert diagnosed_with(digits) == diagnosed_with(digits)


def test_of_many_classes_ten_are_asked_for(monkeypatch):
    asked = []

    def dream(training, random, targets):
        asked.append(targets)

    monkeypatch.setattr(images, "dream", dream)
    random = torch.Generator()
    bench = SimpleNamespace(input=SimpleNamespace(num_classes=1000))
    list(images._evenly_labelled(SimpleNamespace(bench=bench), random))
    labels, counts = torch.cat(asked).unique(return_counts=True)
    assert labels.tolist() == [0, 111, 222, 333, 444, 555, 666, 777, 888, 999]
    assert counts.min() >= 25
