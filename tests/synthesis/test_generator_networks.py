from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from dreamquant.synthesis.generator_networks import (
    ConditionalBatchNorm,
    ImageNetGenerator,
    SmallGenerator,
    UpsampledConv2d,
    build_generator,
)

LATENT, CLASSES = 16, 7
SMALL = [(c, h, w) for c in (1, 3) for h, w in ((8, 8), (28, 28), (32, 32), (33, 33), (5, 12))]


def generator(image, kind=None, seed=0):
    torch.manual_seed(seed)
    return (build_generator if kind is None else kind)(image, CLASSES, LATENT)


def images_of(generator, batch, seed=0):
    random = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (batch,), generator=random)
    with torch.no_grad():
        return generator(torch.randn(batch, LATENT, generator=random), labels)


def assert_normalised(images):
    mean, var = images.mean((0, 2, 3)), images.var((0, 2, 3), correction=0)
    torch.testing.assert_close(mean, torch.zeros_like(mean), rtol=0, atol=1e-4)
    # The last norm adds 1e-5 to a variance of at most 1.
    torch.testing.assert_close(var, torch.ones_like(var), rtol=0, atol=1e-2)


@pytest.mark.parametrize("kind", [SmallGenerator, ImageNetGenerator])
@pytest.mark.parametrize("image", SMALL, ids=lambda image: "x".join(map(str, image)))
def test_images_have_the_networks_shape_zero_mean_and_unit_variance(image, kind):
    images = images_of(generator(image, kind), batch=4)
    assert images.shape == (4, *image)
    assert_normalised(images)


@pytest.mark.parametrize("channels", [1, 3])
def test_large_images_have_the_networks_shape_zero_mean_and_unit_variance(channels):
    images = images_of(generator((channels, 224, 224)), batch=2)
    assert images.shape == (2, channels, 224, 224)
    assert_normalised(images)


@pytest.mark.parametrize(
    ("image", "kind"),
    [
        ((1, 8, 8), SmallGenerator),
        ((3, 64, 64), SmallGenerator),
        ((3, 65, 64), ImageNetGenerator),
        ((3, 16, 96), ImageNetGenerator),
    ],
)
def test_the_size_of_the_image_chooses_the_generator(image, kind):
    assert type(generator(image)) is kind


@pytest.mark.parametrize("kind", [SmallGenerator, ImageNetGenerator])
def test_the_label_changes_the_image(kind):
    made = generator((1, 8, 8), kind)
    if kind is ImageNetGenerator:
        # Gains begin at 1 and biases at 0 for every class: labels speak once it has learned.
        for norm in (made.norm1, made.norm2, made.norm3):
            torch.nn.init.normal_(norm.bias.weight)
    noise = torch.randn(4, LATENT)
    labels = torch.zeros(4, dtype=torch.int64)
    with torch.no_grad():
        first, again, other = made(noise, labels), made(noise, labels), made(noise, labels + 1)
    assert first.equal(again)
    assert not torch.allclose(first, other, atol=1e-3)


@pytest.mark.parametrize("kind", [SmallGenerator, ImageNetGenerator])
def test_every_parameter_takes_a_gradient(kind):
    made = generator((1, 8, 8), kind)
    images = made(torch.randn(CLASSES, LATENT), torch.arange(CLASSES))
    loss = (images * torch.randn(images.shape)).sum()
    gradients = torch.autograd.grad(loss, list(made.parameters()))
    names = [name for name, _ in made.named_parameters()]
    for name, gradient in zip(names, gradients, strict=True):
        assert gradient.isfinite().all(), name


@pytest.mark.parametrize("kind", [SmallGenerator, ImageNetGenerator])
def test_hard_labels_are_soft_ones_without_doubt(kind):
    made = generator((3, 8, 8), kind)
    noise, labels = torch.randn(4, LATENT), torch.tensor([0, 2, 6, 2])
    soft = torch.nn.functional.one_hot(labels, CLASSES).float()
    with torch.no_grad():
        torch.testing.assert_close(made(noise, labels), made(noise, soft), rtol=1e-3, atol=1e-3)


def test_conditional_batch_norm_is_the_equation():
    torch.manual_seed(0)
    norm = ConditionalBatchNorm(3, CLASSES)
    torch.nn.init.normal_(norm.gain.weight)
    torch.nn.init.normal_(norm.bias.weight)
    x, labels = torch.randn(4, 3, 2, 2), torch.tensor([0, 5, 5, 1])
    with torch.no_grad():
        found = norm(x, labels)
    for c in range(3):
        mean, var = x[:, c].mean(), x[:, c].var(correction=0)
        for i, label in enumerate(labels):
            wanted = (x[i, c] - mean) / (var + 0.8).sqrt()  # the released code's epsilon
            wanted = wanted * norm.gain.weight[label, c] + norm.bias.weight[label, c]
            torch.testing.assert_close(found[i, c], wanted.detach())


@pytest.mark.parametrize("size", [(8, 12), (7, 12), (16, 16)], ids=str)
def test_enlarging_and_convolving_is_the_same_in_one_operation(size):
    torch.manual_seed(0)
    layer = UpsampledConv2d(3, 5, size).double()
    x = torch.randn(2, 3, 4, 6, dtype=torch.float64, requires_grad=True)
    plain = F.conv2d(F.interpolate(x, size), layer.weight, padding=1)
    torch.testing.assert_close(layer(x), plain)
    weights = torch.randn_like(plain)
    wanted = torch.autograd.grad((weights * plain).sum(), (x, layer.weight))
    found = torch.autograd.grad((weights * layer(x)).sum(), (x, layer.weight))
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other)


def test_images_are_laid_out_channels_last():
    for image in ((3, 8, 8), (3, 96, 96)):
        images = images_of(generator(image), batch=2)
        assert images.is_contiguous(memory_format=torch.channels_last)
