"""The table of methods, and every number that a paper states."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest
import torch

from dreamquant.errors import MethodError
from dreamquant.methods import METHODS, find_method
from dreamquant.methods.schedule import Schedule
from dreamquant.terms.adaptability import Balance, Band
from dreamquant.terms.classes import TeacherCrossEntropy
from dreamquant.terms.contract import Weighted
from dreamquant.terms.distillation import (
    DifferenceEntropy,
    KnowledgeDistillation,
    StudentCrossEntropy,
)
from dreamquant.terms.statistics import BatchNormStatistics

SMALL, LARGE = (3, 32, 32), (3, 224, 224)
EPOCH = 200


def weighted(*terms):
    return tuple(term if isinstance(term, Weighted) else Weighted(1.0, term) for term in terms)


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
@pytest.mark.parametrize("name", METHODS)
def test_both_presets_exist_for_small_and_large_images(name, image, preset):
    recipe = METHODS[name].recipe(preset, image)
    size = "" if max(image[1:]) <= 64 else "-imagenet"
    assert recipe.schedule == METHODS[name].presets[preset + size].schedule
    assert all(isinstance(term, Weighted) for term in recipe.generator_terms)
    assert all(isinstance(term, Weighted) for term in recipe.student_terms)
    assert recipe.generator_terms
    assert recipe.student_terms


@pytest.mark.parametrize("name", METHODS)
def test_schedules_are_sane(name):
    for preset, chosen in METHODS[name].presets.items():
        s = chosen.schedule
        assert 1 <= s.range_warmup <= s.student_warmup < s.iterations, preset
        assert 2 <= s.batch <= 256, preset
        assert 1e-6 <= s.student_lr <= 0.1, preset
        assert 1e-5 <= s.generator_lr <= 0.1, preset
        assert 0 <= s.weight_decay < 1e-2, preset
        assert 0 <= s.momentum < 1, preset
        assert s.student_warmup + s.lr_warmup < s.iterations, preset
        assert (s.decay == "steps") or not s.milestones, preset
        assert all(0 < milestone < s.iterations for milestone in s.milestones), preset
        assert list(s.milestones) == sorted(set(s.milestones)), preset
        assert s.clip is None or s.clip > 0, preset


@pytest.mark.parametrize(
    ("preset", "quantizers"),
    [
        ("quick", ("learned", "clipped", "kept")),
        ("quick-imagenet", ("ema", "clipped", "matched")),
    ],
)
def test_quick_runs_take_as_many_images_whatever_the_method(preset, quantizers):
    chosen = [method.presets[preset] for method in METHODS.values()]
    assert len({c.schedule.iterations * c.schedule.batch for c in chosen}) == 1
    assert {(c.ranges, c.gradient, c.norms) for c in chosen} == {quantizers}


@pytest.mark.parametrize("name", METHODS)
def test_a_method_cannot_be_changed_by_accident(name):
    with pytest.raises(FrozenInstanceError):
        METHODS[name].latent = 1


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


def paper_schedule(batch, warmup, student_lr, *milestones):
    return Schedule(
        iterations=400 * EPOCH,
        batch=batch,
        range_warmup=4 * EPOCH,
        student_warmup=warmup * EPOCH,
        student_lr=student_lr,
        generator_lr=1e-3,
        decay="steps",
        milestones=tuple(epoch * EPOCH for epoch in milestones),
        lr_warmup=0,
        weight_decay=1e-4,
        momentum=0.9,
        clip=None,
    )


def test_gdfq_has_the_papers_numbers():
    for image, schedule in (
        (SMALL, paper_schedule(200, 4, 1e-4, 100, 200, 300)),
        (LARGE, paper_schedule(16, 50, 1e-6, 100, 200, 300)),
    ):
        recipe = METHODS["gdfq"].recipe("paper", image)
        assert recipe.generator_terms == weighted(
            TeacherCrossEntropy(), 0.1 * BatchNormStatistics()
        )
        assert recipe.student_terms == weighted(
            StudentCrossEntropy(), KnowledgeDistillation(temperature=20)
        )
        assert recipe.schedule == schedule
        assert (recipe.latent, recipe.ranges, recipe.gradient) == (100, "ema", "straight-through")


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
    recipe = METHODS["adadfq"].recipe(preset, image)
    assert recipe.schedule == paper_schedule(*schedule)
    assert recipe.generator_terms == weighted(
        Band(*band), Balance(*balance), 1.0 * BatchNormStatistics()
    )
    assert recipe.student_terms == weighted(DifferenceEntropy(temperature))
    assert (recipe.latent, recipe.ranges, recipe.gradient) == (100, "ema", "straight-through")


@pytest.mark.parametrize("name", ["gdfq", "adadfq"])
def test_a_quick_run_keeps_the_papers_losses(name):
    quick, paper = (METHODS[name].recipe(preset, SMALL) for preset in ("quick", "paper"))
    assert quick.generator_terms == paper.generator_terms
    assert quick.student_terms == paper.student_terms
    assert (quick.ranges, quick.gradient) == ("learned", "clipped")


# ----------------------------------------------------------------------------- recipes


def test_a_large_image_takes_the_imagenet_preset_where_there_is_one():
    adadfq = METHODS["adadfq"]
    assert adadfq.recipe("quick", (3, 64, 64)).schedule == adadfq.presets["quick"].schedule
    large = adadfq.presets["quick-imagenet"].schedule
    assert adadfq.recipe("quick", (3, 65, 8)).schedule == large
    assert adadfq.recipe("quick-imagenet", SMALL).schedule == large
    assert adadfq.recipe("quick-imagenet", LARGE).schedule == large


@pytest.mark.parametrize("image", [SMALL, LARGE])
@pytest.mark.parametrize(("typed", "meant"), [("quik", "quick"), ("Paper", "paper"), ("", None)])
def test_an_unknown_preset_names_the_nearest_and_all(typed, meant, image):
    with pytest.raises(MethodError) as e:
        METHODS["adadfq"].recipe(typed, image)
    assert e.value.what == f"method 'adadfq' has no preset {typed!r}"
    assert e.value.where == "--preset"
    assert all(preset in e.value.remedy for preset in METHODS["adadfq"].presets)
    if meant is not None:
        assert f"did you mean {meant!r}?" in e.value.remedy


def test_taps_are_what_the_terms_read():
    assert METHODS["gdfq"].recipe("quick", SMALL).taps == {"statistics", "student"}
    assert METHODS["ris"].recipe("quick", SMALL).taps == {"statistics", "student", "activation"}


def test_only_some_generators_ask_the_student():
    asks = {name: m.recipe("quick", SMALL).generator_asks_student for name, m in METHODS.items()}
    assert asks["adadfq"]
    assert asks["agm"]
    assert not asks["gdfq"]
    assert not asks["acq"]


@pytest.mark.parametrize("name", ["gdfq", "adadfq"])
def test_targets_are_labels(name):
    targets = METHODS[name].recipe("quick", SMALL).targets
    labels = targets.sample(8, 10, torch.Generator().manual_seed(0))
    assert labels.shape == (8,)
    assert labels.dtype == torch.int64
