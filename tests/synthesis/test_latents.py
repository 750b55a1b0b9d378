"""Images from latents and a fresh generator for each batch."""

import io
from dataclasses import replace

import pytest
import torch

from dreamquant.synthesis.latents import Latents
from dreamquant.terms.image_statistics import InputStatistics
from dreamquant.terms.statistics import BatchNormDeviations
from stored_runs import SPEC, advance, bytes_of, method_of, run_of

TERMS = (BatchNormDeviations(), InputStatistics())
FEW = Latents(TERMS, size=10, batch=4, steps=3, latent=8, widths=(8, 4))


def test_there_is_a_phase_and_a_fresh_generator_for_each_batch():
    run, images = run_of(method_of(FEW))
    losses = advance(run)
    names = ["images 1 to 4", "images 5 to 8", "images 9 to 10"]
    assert run.ended == [(f"distilling {name}", 3) for name in names]
    assert len(losses) == FEW.iterations == 9
    assert images.images.shape == (10, *SPEC.shape)
    assert not images.images.requires_grad


def test_the_loss_falls():
    run, _ = run_of(method_of(replace(FEW, size=8, batch=8, steps=80)))
    losses = advance(run)
    early, late = (sum(sum(each.values()) for each in part) for part in (losses[:5], losses[-5:]))
    assert late < early


def test_images_have_mean_0_and_deviation_1_over_a_batch_and_targets_are_what_the_teacher_sees():
    run, images = run_of(method_of(FEW))
    advance(run)
    first = images.images[:4]
    assert torch.allclose(first.mean((0, 2, 3)), torch.zeros(3), atol=1e-5)
    assert torch.allclose(first.var((0, 2, 3), correction=0), torch.ones(3), atol=1e-2)
    with torch.no_grad():
        assert images.targets.equal(run.bench.teacher(images.images).argmax(1))


@pytest.mark.parametrize("stop", [1, 3, 4, 8])
def test_a_pool_that_was_stopped_in_the_middle_goes_on_bit_for_bit(stop):
    whole, _ = run_of(method_of(FEW))
    advance(whole)
    first, _ = run_of(method_of(FEW))
    advance(first, stop)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second, _ = run_of(method_of(FEW), seed=99)
    second.load_state_dict(torch.load(file))
    advance(second)
    assert bytes_of(second.state_dict()) == bytes_of(whole.state_dict())


def test_stretching_keeps_the_falls_of_the_generators_rate():
    longer = FEW.stretched(2.0)
    assert longer.steps == 6
    assert longer.decay_generator.every == 200
    assert FEW.stretched(0.01).steps == 1
