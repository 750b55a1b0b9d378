"""A tiny teacher, and runs of the real ``Training`` on it that take milliseconds."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

import tiny
from dreamquant.methods import METHODS
from dreamquant.methods.schedule import Schedule
from dreamquant.quantization.convert import quantize_network
from dreamquant.quantization.scheme import Bits, Scheme
from dreamquant.training.devices import accelerator_for
from dreamquant.training.loop import Training
from dreamquant.training.step import Batch, Chance, Step, Teacher

IMAGE, CLASSES = tiny.INPUT.shape, tiny.CLASSES


def tiny_network(seed=0):
    """The benchmarks' tiny network, with statistics as if it had been trained."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = tiny.network()
        for norm in (network[1], network[4]):
            nn.init.normal_(norm.running_mean, std=0.3)
            nn.init.uniform_(norm.running_var, 0.2, 1.5)
            nn.init.uniform_(norm.weight, 0.7, 1.3)
            nn.init.normal_(norm.bias, std=0.3)
    return network.eval().requires_grad_(False)


def short(schedule, **numbers):
    """Six iterations: two of warm-up, three with moving ranges."""
    few = {"iterations": 6, "batch": 4, "range_warmup": 3, "student_warmup": 2, "lr_warmup": 1}
    return replace(schedule, **(few | numbers))


@pytest.fixture
def network():
    return tiny_network()


@pytest.fixture
def recipe_for():
    """``recipe_for("gdfq", "quick", iterations=9)``: a method on the tiny images, shortened."""

    def build(method="adadfq", preset="quick", **numbers):
        recipe = METHODS[method].recipe(preset, IMAGE)
        return replace(recipe, schedule=short(recipe.schedule, **numbers))

    return build


@pytest.fixture
def training_for():
    """``training_for(recipe)``: a fresh run of a recipe on the tiny network."""

    def build(
        recipe,
        *,
        seed=0,
        bits="w3a3",
        placement="relu-output",
        network=None,
        device="cpu",
        **choices,
    ):
        accelerator = accelerator_for(device, "32")
        teacher = tiny_network() if network is None else network
        example = torch.zeros(2, *IMAGE)
        scheme = Scheme(Bits.parse(bits), placement, None, recipe.ranges, recipe.gradient)
        student, _ = quantize_network(teacher, scheme, example)
        return Training(
            recipe,
            Teacher(teacher.to(accelerator.device), example.to(accelerator.device), recipe.taps),
            student.to(accelerator.device),
            image=IMAGE,
            classes=CLASSES,
            seed=seed,
            accelerator=accelerator,
            **choices,
        )

    return build


@pytest.fixture
def schedule_for():
    """``schedule_for(iterations=9)``: numbers that no paper has."""

    def build(**numbers):
        return short(Schedule(1, 1, 0, 0, student_lr=1e-2), **numbers)

    return build


@pytest.fixture
def step_on():
    """``step_on(teacher, images, student=)``: a step on images that no generator made."""

    def build(teacher, images, student=None, labels=None):
        count = len(images)
        labels = torch.zeros(count, dtype=torch.int64) if labels is None else labels
        batch = Batch(images, labels, torch.zeros(count, 100))
        student = teacher.network if student is None else student
        chance = Chance.seeded(0, images.device)
        return Step(batch, teacher, student, chance, student_learns=True)

    return build
