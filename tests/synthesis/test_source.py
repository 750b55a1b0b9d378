"""The contract of images, for the generator: targets, images, and parts for processes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from dreamquant.networks.pixels import FeatureScale
from dreamquant.terms.attention import CENTRE
from tiny_runs import CLASSES, IMAGE, short_method, tiny_run


@pytest.mark.parametrize("size", [2, 4, 7])
def test_images_come_in_the_number_and_with_the_targets_asked_for(size):
    images = tiny_run(short_method()).images
    random = torch.Generator().manual_seed(0)
    asked = images.ask(size, random)
    drawn = images.make(asked)
    assert drawn.images.shape == (size, *IMAGE)
    assert drawn.targets is asked.targets
    assert 0 <= asked.targets.min() <= asked.targets.max() < CLASSES
    again = images.ask(size, random, asked.targets)
    assert again.targets is asked.targets
    assert not images.make(again).images.equal(drawn.images)


def test_images_are_drawn_from_the_random_generator_that_is_given():
    images = tiny_run(short_method()).images
    own = images.bench.rng.asked
    before = own.get_state()
    first, second = (images.batch(4, torch.Generator().manual_seed(3)) for _ in range(2))
    assert own.get_state().equal(before)
    assert first.latent.equal(second.latent)
    assert not images.batch(4).latent.equal(first.latent)
    assert not own.get_state().equal(before)


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_parts_make_up_the_batch_and_keep_pairs_together(parts):
    method = short_method("acq", batch=8)
    whole, parted = (tiny_run(method, micro_batches=n).images for n in (1, parts))
    (batch,) = whole.parts(8)
    found = list(parted.parts(8))
    assert [len(part.images) for part in found] == [8 // parts] * parts
    for name in ("targets", "latent"):
        assert torch.cat([getattr(part, name) for part in found]).equal(getattr(batch, name))
    for part in found:
        centres = part.conditions[CENTRE]
        assert centres[0::2].equal(centres[1::2])
        assert part.targets[0::2].equal(part.targets[1::2])


@pytest.mark.parametrize(
    ("method", "asks"), [("gdfq", False), ("adadfq", True), ("gdfq+agm", True)], ids=str
)
def test_whether_the_student_is_asked_follows_from_the_terms_taps(method, asks):
    assert tiny_run(short_method(method)).images.asks_student == asks


def test_features_have_the_scale_of_the_networks_input():
    images = tiny_run(short_method()).images
    request = images.ask(4, torch.Generator().manual_seed(0))
    plain = images.make(request).images
    width = IMAGE[-1]
    spread = torch.linspace(1, 100, width)
    spec = images.bench.input
    scaled = replace(spec, features=True, centre=(5.0,) * width, spread=tuple(spread.tolist()))
    images.scale = FeatureScale(scaled, images.bench.device)
    assert torch.allclose(images.make(request).images, plain * spread + 5, rtol=1e-5)


def test_the_generator_runs_in_the_precision_of_training():
    run = tiny_run(short_method(alone=1), precision="bf16")
    ran = []
    for layer in run.generator.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(lambda _, inputs, output: ran.append(output.dtype))
    for _ in range(2):  # it learns alone, then along with the student
        ran.clear()
        run.step()
        assert set(ran) == {torch.bfloat16}
