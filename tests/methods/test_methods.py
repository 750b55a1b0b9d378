"""The table of methods, and every number that a paper states."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest
import torch

from dreamquant.errors import MethodError
from dreamquant.methods import METHODS, find_method
from dreamquant.methods.method import Preset
from dreamquant.networks.norm_inputs import BatchNormInputs
from dreamquant.networks.relu_maps import LastMap
from dreamquant.networks.taps import Output
from dreamquant.recovery.norms import ReestimateNorms
from dreamquant.recovery.train import Train
from dreamquant.synthesis.generator import Generator
from dreamquant.terms.adaptability import Balance, Band
from dreamquant.terms.classes import TeacherCrossEntropy
from dreamquant.terms.contract import weighted
from dreamquant.terms.distillation import (
    DifferenceEntropy,
    KnowledgeDistillation,
    StudentCrossEntropy,
)
from dreamquant.terms.statistics import BatchNormStatistics
from dreamquant.training.decay import Steps
from tiny_runs import WITH_GENERATOR

SMALL, LARGE = (3, 32, 32), (3, 224, 224)
EPOCH = 200


def trained(method):
    (train,) = (part for part in method.recovery if isinstance(part, Train))
    return train


def reestimated(method):
    """Batches that batch norms are re-estimated on."""
    return sum(part.batches for part in method.recovery if isinstance(part, ReestimateNorms))


# DQDG is for keyword spotting: its features are small, and its schedule is its own.
FOR_IMAGES = [name for name in WITH_GENERATOR if name != "dqdg"]
FOR_CIFAR_ALONE = {"zaq"}  # its paper's schedule serves images of all sizes


# --------------------------------------------------------------------------- the table


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_found_by_the_name_it_carries(name):
    method = find_method(name)
    assert method is METHODS[name]
    assert method.name == name
    assert method.summary
    assert "\n" not in method.summary
    assert all(vars(method.paper).values()), "a provenance that is not told"


@pytest.mark.parametrize("preset", ["quick", "paper"])
@pytest.mark.parametrize("image", [SMALL, LARGE, (1, 8, 8), (1, 28, 28), (3, 64, 64), (3, 65, 65)])
@pytest.mark.parametrize("name", FOR_IMAGES)
def test_both_presets_exist_for_small_and_large_images(name, image, preset):
    method = METHODS[name].resolved(preset, image)
    size = "" if max(image[1:]) <= 64 else "-imagenet"
    if preset == "paper" and name in FOR_CIFAR_ALONE:
        size = ""
    chosen = METHODS[name].presets[preset + size]
    assert method.images.alone == chosen.images["alone"]
    assert trained(method).iterations == chosen.recovery["Train"]["iterations"]
    assert method.images.terms
    assert trained(method).terms
    assert not method.presets


@pytest.mark.parametrize("name", WITH_GENERATOR)
def test_schedules_are_sane(name):
    for preset in METHODS[name].presets:
        method = METHODS[name].resolved(preset, SMALL)
        images, train = method.images, trained(method)
        assert 1 <= images.observe <= images.alone < method.iterations, preset
        assert method.iterations == images.alone + train.iterations, preset
        assert 2 <= images.batch <= 256, preset
        assert 2 <= train.batch <= 256, preset
        assert 1e-6 <= train.lr <= 0.1, preset
        assert 1e-5 <= images.lr <= 0.1, preset
        assert 0 <= train.weight_decay < 1e-2, preset
        assert 0 <= train.momentum < 1, preset
        assert train.clip is None or train.clip > 0, preset
        for decay, total in ((images.decay, method.iterations), (train.decay, train.iterations)):
            if isinstance(decay, Steps):
                assert all(0 < milestone < total for milestone in decay.at), preset
                assert list(decay.at) == sorted(set(decay.at)), preset
            else:
                assert decay.rise < total, preset


@pytest.mark.parametrize(
    ("preset", "scheme", "norms"),
    [
        ("quick", {"ranges": "learned", "gradient": "clipped"}, 0),
        ("quick-imagenet", {"gradient": "clipped"}, 16),
    ],
)
def test_quick_runs_take_as_many_images_whatever_the_method(preset, scheme, norms):
    methods = [METHODS[name].resolved(preset, SMALL) for name in FOR_IMAGES]
    taken = {
        m.images.alone * m.images.batch
        + trained(m).iterations * trained(m).batch * trained(m).turns
        for m in methods
    }
    assert len(taken) == 1
    assert all(scheme.items() <= method.scheme.items() for method in methods)
    assert {reestimated(method) for method in methods} == {norms}


@pytest.mark.parametrize("name", METHODS)
def test_a_method_cannot_be_changed_by_accident(name):
    with pytest.raises(FrozenInstanceError):
        METHODS[name].images = None
    for part in (METHODS[name].images, *METHODS[name].recovery):
        if part is not None:
            with pytest.raises(FrozenInstanceError):
                part.batch = 1


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("gdfg", "gdfq"),
        ("adadqf", "adadfq"),
        ("AdaDFQ", "adadfq"),
        ("adafdq", "adadfq"),
        ("", None),
        ("x", None),
    ],
)
def test_an_unknown_method_names_the_nearest(typed, meant):
    with pytest.raises(MethodError) as e:
        find_method(typed)
    assert e.value.what == f"there is no method {typed!r}"
    assert e.value.where == "--method"
    assert "dreamquant methods" in e.value.remedy
    if meant is not None:
        assert f"did you mean {meant!r}?" in e.value.remedy


# ------------------------------------------------------------ numbers that papers state


def as_published(terms, student_terms, batch, warmup, student_lr, *milestones):
    """Images and recovery: 400 epochs, in the first ``warmup`` the generator learns alone."""
    epochs = tuple(epoch * EPOCH for epoch in milestones)
    images = Generator(
        terms,
        latent=100,
        batch=batch,
        alone=warmup * EPOCH,
        observe=4 * EPOCH,
        lr=1e-3,
        decay=Steps(epochs),
    )
    train = Train(
        student_terms,
        iterations=(400 - warmup) * EPOCH,
        batch=batch,
        lr=student_lr,
        optimizer="sgd",
        # Counted from the student's own first iteration, they fall where the generator's do.
        decay=Steps(tuple(epoch - warmup * EPOCH for epoch in epochs)),
        momentum=0.9,
        weight_decay=1e-4,
        clip=None,
    )
    return images, (ReestimateNorms(batches=0), train)


def test_gdfq_has_the_papers_numbers():
    for image, schedule in (
        (SMALL, (200, 4, 1e-4, 100, 200, 300)),
        (LARGE, (16, 50, 1e-6, 100, 200, 300)),
    ):
        method = METHODS["gdfq"].resolved("paper", image)
        assert (method.images, method.recovery) == as_published(
            [TeacherCrossEntropy(), 0.1 * BatchNormStatistics()],
            [StudentCrossEntropy(), KnowledgeDistillation(temperature=20)],
            *schedule,
        )
        assert method.scheme == {}  # a moving average of ranges, straight-through


@pytest.mark.parametrize(
    ("preset", "image", "schedule", "band", "balance", "temperature"),
    [
        ("paper", SMALL, (16, 4, 1e-4, 100, 200, 300), (0.1, 0.8), (0.2, 0.1), 20),
        # A milestone at epoch 400, the last, changes nothing and is left out.
        ("paper", LARGE, (16, 50, 1e-5, 350), (0.1, 0.8), (0.2, 0.1), 5),
        ("paper-resnet18-w4", LARGE, (16, 50, 1e-5, 350), (0.3, 0.8), (0.2, 0.1), 5),
        ("paper-resnet50-w3", LARGE, (16, 100, 1e-4, 150, 300), (0.4, 0.8), (0.2, 0.1), 5),
        ("paper-resnet50-w4", LARGE, (16, 50, 1e-4, 200, 300), (0.3, 0.8), (0.1, 0.1), 5),
        ("paper-mobilenetv2-w4", LARGE, (16, 50, 1e-5, 350), (0.1, 0.8), (0.3, 0.1), 5),
    ],
)
def test_adadfq_has_the_papers_numbers(preset, image, schedule, band, balance, temperature):
    method = METHODS["adadfq"].resolved(preset, image)
    assert (method.images, method.recovery) == as_published(
        [Band(*band), Balance(*balance), BatchNormStatistics()],
        [DifferenceEntropy(temperature)],
        *schedule,
    )
    assert method.scheme == {}


@pytest.mark.parametrize("name", ["gdfq", "adadfq"])
def test_a_quick_run_keeps_the_papers_losses(name):
    quick, paper = (METHODS[name].resolved(preset, SMALL) for preset in ("quick", "paper"))
    assert weighted(quick.images.terms) == weighted(paper.images.terms)
    assert weighted(trained(quick).terms) == weighted(trained(paper).terms)
    assert quick.scheme == {"ranges": "learned", "gradient": "clipped"}


# ----------------------------------------------------------------------------- presets


def test_a_large_image_takes_the_imagenet_preset_where_there_is_one():
    adadfq = METHODS["adadfq"]
    small, large = (adadfq.with_numbers(adadfq.presets[n]) for n in ("quick", "quick-imagenet"))
    assert small != large
    assert adadfq.resolved("quick", (3, 64, 64)) == small
    assert adadfq.resolved("quick", (3, 65, 8)) == large
    assert adadfq.resolved("quick-imagenet", SMALL) == large
    assert adadfq.resolved("quick-imagenet", LARGE) == large


@pytest.mark.parametrize(
    ("preset", "message"),
    [
        (Preset(images={"colour": 1}), "Generator has no 'colour'"),
        (Preset(recovery={"Train": {"speed": 1}}), "Train has no 'speed'"),
        (Preset(recovery={"Trian": {"lr": 1}}), "gdfq has no recovery 'Trian'"),
    ],
)
def test_numbers_of_parts_that_are_not_there_are_refused(preset, message):
    with pytest.raises(MethodError, match=message):
        METHODS["gdfq"].with_numbers(preset)


def test_ranges_cannot_follow_images_longer_than_the_generator_learns_alone():
    with pytest.raises(MethodError, match="ranges are observed for 101 iterations"):
        METHODS["gdfq"].with_numbers(Preset(images={"alone": 100, "observe": 101}))


@pytest.mark.parametrize("image", [SMALL, LARGE])
@pytest.mark.parametrize(("typed", "meant"), [("quik", "quick"), ("Paper", "paper"), ("", None)])
def test_an_unknown_preset_names_the_nearest_and_all(typed, meant, image):
    with pytest.raises(MethodError) as e:
        METHODS["adadfq"].resolved(typed, image)
    assert e.value.what == f"method 'adadfq' has no preset {typed!r}"
    assert e.value.where == "--preset"
    assert all(preset in e.value.remedy for preset in METHODS["adadfq"].presets)
    if meant is not None:
        assert f"did you mean {meant!r}?" in e.value.remedy


def test_taps_are_what_the_terms_read():
    gdfq, ris, acq, adadfq = (
        METHODS[name].resolved("quick", SMALL) for name in ("gdfq", "ris", "acq", "adadfq")
    )
    assert kinds(gdfq.teacher_taps) == {BatchNormInputs}
    assert kinds(ris.teacher_taps) == {BatchNormInputs, LastMap}
    assert kinds(acq.teacher_taps) == {BatchNormInputs, LastMap}
    assert gdfq.student_taps == adadfq.student_taps == (Output(),)


def kinds(taps):
    assert len(set(taps)) == len(taps)
    return {type(tap) for tap in taps}


def test_only_some_generators_ask_the_student():
    asks = {
        name: METHODS[name].resolved("quick", SMALL).images.student_taps for name in WITH_GENERATOR
    }
    assert asks["adadfq"]
    assert asks["agm"]
    assert not asks["gdfq"]
    assert not asks["acq"]


@pytest.mark.parametrize("name", ["gdfq", "adadfq"])
def test_targets_are_labels(name):
    targets = METHODS[name].resolved("quick", SMALL).images.targets
    labels = targets.sample(8, 10, torch.Generator().manual_seed(0))
    assert labels.shape == (8,)
    assert labels.dtype == torch.int64
