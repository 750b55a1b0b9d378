"""Images optimised pixel by pixel."""

import io
from dataclasses import dataclass, replace

import pytest
import torch

from dreamquant.methods import METHODS
from dreamquant.networks.spec import InputSpec
from dreamquant.recovery.calibrate import Calibrate
from dreamquant.recovery.train import Train
from dreamquant.synthesis.dead_leaves import DeadLeaves
from dreamquant.synthesis.pixels import Dreaming, Pixels
from dreamquant.synthesis.procedural import WhiteNoise, input_moments, pixel_moments, procedural
from dreamquant.synthesis.targets import OneHot, Regions
from dreamquant.terms.classes import TeacherCrossEntropy
from dreamquant.terms.contract import Term
from dreamquant.terms.distillation import KnowledgeDistillation
from dreamquant.terms.statistics import BatchNormStatistics
from dreamquant.training.decay import Cosine
from dreamquant.training.rng import Rng
from stored_runs import SPEC, advance, bench_of, bytes_of, method_of, run_of

TERMS = (BatchNormStatistics(), 0.5 * TeacherCrossEntropy())


def pixels(**numbers):
    few = {"size": 6, "batch": 4, "steps": 5, "lr": 0.1}
    return Pixels(TERMS, **few | numbers)


def dreamed(source, **choices):
    run, images = run_of(method_of(source), **choices)
    return advance(run), run, images


def test_there_is_a_phase_for_each_batch_and_the_last_takes_the_rest():
    source = pixels(size=10, batch=4, steps=3)
    losses, run, images = dreamed(source)
    names = ["images 1 to 4", "images 5 to 8", "images 9 to 10"]
    assert run.ended == [(f"dreaming {name}", 3) for name in names]
    assert source.iterations == run.done == len(losses) == 9
    assert images.images.shape == (10, *SPEC.shape)
    assert images.targets.shape == (10,)
    assert not images.images.requires_grad


@pytest.mark.parametrize("term", TERMS, ids=["statistics", "classes"])
def test_the_loss_falls(term):
    losses, _, _ = dreamed(replace(pixels(size=8, batch=8, steps=60), terms=(term,)))
    (name,) = losses[0]
    assert losses[-1][name] < losses[0][name]


def test_no_more_than_a_batch_is_in_the_network_at_once_however_large_the_pool():
    source = pixels(size=40, batch=4, steps=1)
    run, images = run_of(method_of(source))
    seen = []
    run.bench.teacher.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    advance(run)
    assert max(seen) == 4
    assert len(images.images) == 40


def test_steps_are_adams_on_pixels_from_noise():
    source = pixels(size=4, batch=4, steps=4)
    _, _, images = dreamed(source, seed=3)
    teacher = bench_of(method_of(source)).teacher
    rng = Rng.seeded(4, torch.device("cpu"))
    x = WhiteNoise().draw(4, SPEC.shape, rng.asked).requires_grad_()
    labels = OneHot().sample(4, SPEC.num_classes, rng.asked)
    adam = torch.optim.Adam([x])
    norms = [m for m in teacher.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    seen = []
    for step in range(4):
        seen.clear()
        handles = [n.register_forward_pre_hook(lambda _, i: seen.append(i[0])) for n in norms]
        loss = 0.5 * torch.nn.functional.cross_entropy(teacher(x), labels)
        for norm, entering in zip(norms, seen, strict=True):
            var, mean = torch.var_mean(entering, (0, 2, 3), correction=0)
            gap = (mean - norm.running_mean).square() + (var - norm.running_var).square()
            loss = loss + gap.mean() / len(norms)
        for handle in handles:
            handle.remove()
        adam.param_groups[0]["lr"] = 0.1 * Cosine().factor(step, 4)
        adam.zero_grad()
        loss.backward()
        adam.step()
    assert torch.allclose(images.images, x.detach(), atol=1e-4)
    assert images.targets.equal(labels)


def test_values_stay_those_of_pixels_where_they_are_clamped():
    _, _, images = dreamed(pixels(lr=5.0, clamp=True, start=DeadLeaves(leaves=9)))
    _, _, low, high = pixel_moments(SPEC)
    assert (images.images >= low[:, None, None] - 1e-6).all()
    assert (images.images <= high[:, None, None] + 1e-6).all()
    _, _, free = dreamed(pixels(lr=5.0))
    assert free.images.abs().max() > high.max()


def test_features_have_no_range_of_pixels():
    assert InputSpec((3, 8, 8), (0.5, 0.4, 0.3), (0.25,) * 3, 5).pixels
    assert InputSpec((1, 8, 8), (0.0,), (1.0,), 5).pixels
    assert not InputSpec((1, 98, 40), (-1.2,), (0.9,), 5).pixels
    assert not InputSpec((98, 40), (0.5,), (10.4,), 5).pixels


def test_what_else_is_asked_of_images_stays_theirs_and_outlives_a_stop():
    @dataclass(frozen=True)
    class Asked(Term):
        def __call__(self, step):
            seen.append(step.condition("regions").clone())
            return step.images.square().mean()

    seen = []
    source = Pixels((Asked(),), size=4, batch=4, steps=4, conditions=(Regions(),))
    run, _ = run_of(method_of(source))
    advance(run, 2)
    state = run.state_dict()
    again, _ = run_of(method_of(source), seed=9)
    again.load_state_dict(state)
    advance(again, 1)
    assert len(seen) == 3
    assert all(each.equal(seen[0]) for each in seen)


def test_a_start_of_procedural_images_has_their_moments():
    _, _, images = dreamed(pixels(lr=0.0, start=DeadLeaves(leaves=9), size=4))
    wanted = procedural(
        DeadLeaves(leaves=9),
        4,
        SPEC.image,
        input_moments(SPEC),
        torch.Generator().manual_seed(1),
    )
    assert images.images.equal(wanted)


@pytest.mark.parametrize(("shift", "flip"), [(2, False), (0, True), (2, True)])
def test_images_are_seen_rolled_and_mirrored_at_random(shift, flip):
    run, _ = run_of(method_of(pixels(shift=shift, flip=flip)))
    advance(run, 1)
    phase = run.phase
    assert isinstance(phase, Dreaming)
    variants = [
        turned.roll((down, right), (2, 3))
        for turned in ((phase.pixels, phase.pixels.flip(3)) if flip else (phase.pixels,))
        for down in range(-shift, shift + 1)
        for right in range(-shift, shift + 1)
    ]
    seen = [phase._seen()[0] for _ in range(60)]
    found = [[i for i, v in enumerate(variants) if v.equal(x)] for x in seen]
    assert all(found)
    assert len({one[0] for one in found}) > len(variants) // 2


@pytest.mark.parametrize("stop", [1, 3, 5, 7, 11, 13])
def test_a_run_that_stops_in_the_middle_of_a_pool_goes_on_bit_for_bit(stop):
    train = Train([KnowledgeDistillation(temperature=4)], iterations=5, batch=4, lr=1e-3)
    method = method_of(pixels(shift=1, flip=True), Calibrate(count=4, batch=4), train)
    whole, _ = run_of(method)
    total = len(advance(whole))
    assert total > 13 + 3
    first, _ = run_of(method)
    advance(first, stop)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    advance(first)  # going on must not reach into what was saved
    file.seek(0)
    # Another seed, so that nothing but the checkpoint can explain equality.
    second, _ = run_of(replace(method), seed=99)
    second.bench.seed = 0
    second.load_state_dict(torch.load(file))
    assert second.done == stop
    advance(second)
    assert second.ended == whole.ended
    assert bytes_of(second.state_dict()) == bytes_of(whole.state_dict())
    assert bytes_of(first.state_dict()) == bytes_of(whole.state_dict())


def test_what_was_saved_stays_as_it_was():
    run, _ = run_of(method_of(pixels()))
    advance(run, 2)
    saved = run.state_dict()["phase"]["pixels"].clone()
    before = bytes_of(saved)
    advance(run, 1)
    assert bytes_of(run.phase.pixels) != before


def test_stretching_changes_the_steps_alone():
    source = pixels(size=10, batch=4, steps=10)
    assert source.stretched(2.5) == replace(source, steps=25)
    assert source.stretched(1e-6).steps == 1
    whole = replace(METHODS["minutes"], presets={})
    for iterations in (1, 7, 250):
        assert whole.lasting(iterations).images.steps == iterations


def test_pixels_read_the_teacher_alone():
    for name in ("zeroq", "minutes"):
        method = METHODS[name].resolved("quick", SPEC.shape)
        assert method.images.student_taps == ()
        assert method.student_taps == ()


def test_features_are_optimised_in_units_of_their_scale():
    spec = replace(SPEC, features=True, centre=(5.0,) * 8, spread=(*(100.0,) * 7, 1.0))
    steps = []
    for lr in (0.0, 0.1):
        _, _, images = dreamed(pixels(lr=lr, start=WhiteNoise(), size=4), spec=spec)
        steps.append(images.images)
    moved = (steps[1] - steps[0]).abs().mean((0, 1, 2))
    assert moved[:7].mean() > 20 * moved[7]
