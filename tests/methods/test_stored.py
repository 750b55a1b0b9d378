"""Methods that synthesize their images first and then train on them."""

from __future__ import annotations

import io

import pytest
import torch

from dreamquant.methods import METHODS
from dreamquant.methods.method import Preset
from dreamquant.recovery.promotion import Promotion
from dreamquant.recovery.train import Train
from dreamquant.synthesis.pixels import Pixels
from dreamquant.synthesis.targets import HalfSoft
from stored_runs import SPEC, advance, bytes_of, run_of

STORED = ("dsg", "intraq", "hast", "plf")
LEARNING = ("intraq", "hast", "plf")


def short(name, preset="quick"):
    """A method on images of 8 x 8: two batches of three steps, then four iterations."""
    method = METHODS[name].resolved(preset, SPEC.shape)
    train = {"Train": {"iterations": 4, "batch": 4}} if name in LEARNING else {}
    few = {"size": 12, "batch": 8, "steps": 3}
    recovery = {**train, "Calibrate": {"count": 8, "batch": 4}}
    return method.with_numbers(Preset(images=few, recovery=recovery))


@pytest.mark.parametrize(
    ("name", "preset"),
    [
        *((name, "quick") for name in STORED),
        *(("hast", preset) for preset in ("quick-imagenet", "paper", "paper-imagenet")),
    ],
)
def test_every_preset_runs_dreams_then_ranges_then_learning(name, preset):
    run, images = run_of(short(name, preset))
    losses = advance(run)
    wanted = ["dreaming images 1 to 8", "dreaming images 9 to 12", "setting activation ranges"]
    if name in LEARNING:
        wanted.append("student learns")
    assert [phase for phase, _ in run.ended] == wanted
    assert len(images.images) == 12
    assert run.bench.student.ranges_set()
    assert all(torch.isfinite(torch.tensor(list(each.values()))).all() for each in losses)


@pytest.mark.parametrize("name", ["hast"])
def test_the_student_changes_and_comes_closer_to_the_teacher(name):
    method = short(name).with_numbers(Preset(recovery={"Train": {"iterations": 60, "batch": 12}}))
    run, _ = run_of(method)
    losses = advance(run)
    learned = [each for each in losses if "student/ImageDistillation" in each]
    early, late = (
        sum(each["student/ImageDistillation"] for each in part)
        for part in (learned[:10], learned[-10:])
    )
    assert late < early


@pytest.mark.parametrize(
    ("name", "stop"), [*(("hast", stop) for stop in (1, 4, 7, 8)), ("intraq", 10), ("plf", 10)]
)
def test_a_stopped_run_goes_on_bit_for_bit(name, stop):
    method = short(name)
    whole, _ = run_of(method)
    assert len(advance(whole)) > 11
    first, _ = run_of(method)
    for _, _ in zip(range(stop), first.steps(), strict=False):
        pass
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second, _ = run_of(method, seed=99)
    second.bench.seed = 0
    second.load_state_dict(torch.load(file))
    advance(second)
    assert bytes_of(second.state_dict()) == bytes_of(whole.state_dict())


def test_the_papers_numbers_of_the_pool():
    for name in LEARNING:
        images = METHODS[name].resolved("paper", (3, 32, 32)).images
        assert isinstance(images, Pixels)
        assert (images.size, images.batch, images.steps, images.lr) == (5120, 256, 1000, 0.5)


@pytest.mark.parametrize(
    ("name", "shape", "lr", "batch"),
    [
        ("hast", (3, 32, 32), 1e-5, 256),
        ("hast", (3, 224, 224), 1e-6, 16),
        ("intraq", (3, 32, 32), 1e-4, 256),
        ("intraq", (3, 224, 224), 1e-6, 16),
        ("plf", (3, 32, 32), 1e-3, 256),
        ("plf", (3, 224, 224), 1e-5, 16),
    ],
)
def test_the_papers_numbers_of_the_training(name, shape, lr, batch):
    method = METHODS[name].resolved("paper", shape)
    (train,) = (part for part in method.recovery if isinstance(part, Train))
    assert (train.lr, train.batch, train.iterations) == (lr, batch, 147 * 200)
    assert (train.optimizer, train.momentum, train.weight_decay) == ("sgd", 0.9, 1e-4)
    assert (train.views == (Promotion(step=0.01),)) == (name == "hast")


def test_quick_runs_of_stored_methods_take_as_many_images():
    chosen = [METHODS[name].presets["quick"] for name in LEARNING]
    assert chosen[0] == chosen[1] == chosen[2]


def test_half_of_the_soft_targets_are_hard():
    targets = HalfSoft(lowest=0.6).sample(4000, 5, torch.Generator().manual_seed(0))
    assert torch.allclose(targets.sum(1), torch.ones(4000), atol=1e-6)
    own, labels = targets.max(1)
    hard = own == 1
    assert hard.float().mean().item() == pytest.approx(0.5, abs=0.05)
    assert own.min() >= 0.6
    assert own[~hard].mean().item() == pytest.approx(0.8, abs=0.02)
    assert len(labels.unique()) == 5
    others = targets.clone().scatter_(1, labels[:, None], 0)
    assert torch.allclose(others.sum(1), 1 - own, atol=1e-6)
    assert torch.allclose(others.amax(1) * 4, 1 - own, atol=1e-6)
