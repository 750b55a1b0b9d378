"""TexQ's terms against plain loops, and its two stages."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
import torch

from dreamquant.methods import METHODS
from dreamquant.methods.method import Preset
from dreamquant.networks.norm_inputs import BatchNormInputs, Statistics
from dreamquant.synthesis.procedural import WhiteNoise
from dreamquant.terms.centres import CALIBRATION, CentreDistance
from dreamquant.terms.layered import LayeredStatistics
from dreamquant.terms.texture import TextureEnergy, texture_energy
from given_steps import given_step
from stored_runs import SPEC, advance, bytes_of, images_of, run_of


def test_deep_layers_weigh_more():
    random = np.random.default_rng(0)
    layers = [
        (random.random(n), random.random(n), random.random(n), random.random(n)) for n in (2, 3, 4)
    ]
    wanted = 0.0
    for weight, (mean, var, stored_mean, stored_var) in zip((0.2, 1.1, 1.1), layers, strict=True):
        gap = ((mean - stored_mean) ** 2).mean() + ((var - stored_var) ** 2).mean()
        wanted += weight * gap / 3
    columns = (torch.from_numpy(np.concatenate(each)) for each in zip(*layers, strict=True))
    term = LayeredStatistics()
    step = given_step(term, teacher={"statistics": Statistics(*columns, sizes=(2, 3, 4))})
    assert term(step).item() == pytest.approx(wanted, rel=1e-12)


def energies(image):
    """Of one image (C, H, W), in plain loops."""
    vectors = np.array(
        [
            [1, 4, 6, 4, 1],
            [-1, -2, 0, 2, 1],
            [-1, 0, 2, 0, -1],
            [-1, 2, 0, -2, 1],
            [1, -4, 6, -4, 1],
        ],
        dtype=float,
    )
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    grey = np.pad(image.mean(0), 2, mode="edge")
    found = []
    for down in vectors:
        for right in vectors:
            kernel = np.outer(down, right)
            responses = [
                abs((grey[i : i + 5, j : j + 5] * kernel).sum())
                for i in range(image.shape[1])
                for j in range(image.shape[2])
            ]
            found.append(np.mean(responses))
    rest = np.array(found[1:])
    return rest / rest.sum()


def test_texture_energies_and_their_term_are_laws():
    images = images_of(3)
    wanted = np.stack([energies(image.double().numpy()) for image in images])
    assert np.allclose(texture_energy(images).numpy(), wanted, atol=1e-5)
    outside = [1 - sorted(each, reverse=True)[0] - sorted(each, reverse=True)[1] for each in wanted]
    term = TextureEnergy(dominant=2)
    loss = term(given_step(term, images=images))
    assert loss.item() == pytest.approx(np.mean(outside), rel=1e-4)


def test_noise_has_its_energy_in_more_textures_than_a_ramp():
    noise = WhiteNoise().draw(1, (1, 16, 16), torch.Generator().manual_seed(0))
    ramp = torch.linspace(-1, 1, 16).expand(1, 1, 16, 16)
    term = TextureEnergy()
    assert term(given_step(term, images=noise)) > term(given_step(term, images=ramp)) + 0.2


def test_distances_to_centres_are_kept_within_a_band():
    random = torch.Generator().manual_seed(0)
    mean, var = torch.randn(4, 3, generator=random), torch.rand(4, 3, generator=random)
    stored = torch.zeros(3), torch.full((3,), 4.0)
    centres = torch.randn(4, 6, generator=random)
    term = CentreDistance(lower=0.9, upper=1.0)
    step = given_step(
        term,
        teacher={"of_images": Statistics(mean, var, *stored, sizes=(3,))},
        condition={CALIBRATION: centres}.__getitem__,
    )
    wanted = 0.0
    for m, v, centre in zip(mean.numpy(), var.numpy(), centres.numpy(), strict=True):
        own = np.concatenate([m / 2, np.sqrt(v) / 2])
        cosine = own @ centre / np.linalg.norm(own) / np.linalg.norm(centre)
        wanted += (max(0.9 - (1 - cosine), 0) + max((1 - cosine) - 1.0, 0)) / 4
    assert term(step).item() == pytest.approx(wanted, rel=1e-3)


def short(preset="quick"):
    method = METHODS["texq"].resolved(preset, SPEC.shape)

    images = {
        "calibration": replace(method.images.calibration, batch=3, steps=2),
        "generator": replace(method.images.generator, batch=4, alone=2, observe=2),
    }
    return method.with_numbers(
        Preset(images=images, recovery={"Train": {"iterations": 3, "batch": 4}})
    )


@pytest.mark.parametrize("preset", ["quick", "quick-imagenet", "paper", "paper-imagenet"])
def test_a_calibration_image_of_each_class_then_a_generator_then_the_student(preset):
    run, images = run_of(short(preset))
    advance(run)
    assert [phase for phase, _ in run.ended if "norms" not in phase] == [
        "dreaming images 1 to 3",
        "dreaming images 4 to 5",
        "generator warms up",
        "student learns",
    ]
    assert images.calibration.targets.tolist() == [0, 1, 2, 3, 4]
    batch = images.batch(6)
    teacher = run.bench.players.teacher
    s = teacher.read(images.calibration.images)[1][BatchNormInputs(per_image=True)]
    own = ((s.mean - s.stored_mean) / (s.stored_var + 1e-6).sqrt())[batch.targets]
    assert torch.allclose(batch.conditions[CALIBRATION][:, : own.shape[1]], own, atol=1e-5)


@pytest.mark.parametrize("stop", [1, 3, 5, 7])
def test_a_stopped_run_goes_on_bit_for_bit(stop):
    whole, _ = run_of(short())
    advance(whole)
    first, _ = run_of(short())
    advance(first, stop)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second, _ = run_of(short(), seed=99)
    second.bench.seed = 0
    second.load_state_dict(torch.load(file))
    advance(second)
    assert bytes_of(second.state_dict()) == bytes_of(whole.state_dict())
