"""Conditional generators of normalised images (GDFQ, Xu et al., ECCV 2020, and its successors).

Both turn noise z ~ N(0, I) of shape (B, latent) and labels (B,) into images (B, C, H, W) with zero
mean and unit variance per channel over the batch: the space that the teacher's first layer sees.
"""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

# The released code passes 0.8 where the momentum was meant; it is part of how these generators
# behave, so it is kept and named.
INNER_EPSILON = 0.8
_BASE_CHANNELS = 128


def _stages(height: int, width: int) -> list[tuple[int, int]]:
    """Sizes from the base, a quarter of the image rounded up, to the image itself."""
    return [(-(-height // part), -(-width // part)) for part in (4, 2, 1)]


class SmallGenerator(nn.Module):
    """The generator for images of up to 64 pixels: the label multiplies the noise.

    Args:
        image: channels, height, width.
        classes: number of labels.
        latent: length of the noise.
    """

    def __init__(self, image: tuple[int, int, int], classes: int, latent: int) -> None:
        super().__init__()
        channels, height, width = image
        base, middle, full = _stages(height, width)
        self.latent, self.base = latent, base
        self.embedding = nn.Embedding(classes, latent)
        self.project = nn.Linear(latent, _BASE_CHANNELS * base[0] * base[1])
        self.decode = nn.Sequential(
            nn.BatchNorm2d(_BASE_CHANNELS),
            nn.Upsample(middle),
            nn.Conv2d(_BASE_CHANNELS, 128, 3, padding=1),
            nn.BatchNorm2d(128, eps=INNER_EPSILON),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Upsample(full),
            nn.Conv2d(128, 64, 3, padding=1),
            nn.BatchNorm2d(64, eps=INNER_EPSILON),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(64, channels, 3, padding=1),
            nn.Tanh(),
            nn.BatchNorm2d(channels, affine=False),
        )

    def forward(self, noise: Tensor, labels: Tensor) -> Tensor:
        """Images (B, C, H, W) for ``noise`` (B, latent) and int64 ``labels`` (B,)."""
        conditioned = self.embedding(labels) * noise
        base = self.project(conditioned).view(-1, _BASE_CHANNELS, *self.base)
        return cast(Tensor, self.decode(base))


class ConditionalBatchNorm(nn.Module):
    """Batch norm whose gain and bias are looked up by label (initially 1 and 0)."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(features, eps=INNER_EPSILON, affine=False)
        self.gain = nn.Embedding(classes, features)
        self.bias = nn.Embedding(classes, features)
        nn.init.ones_(self.gain.weight)
        nn.init.zeros_(self.bias.weight)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """Normalised ``x`` (B, F, H, W), scaled and shifted per label (B,)."""
        gain, bias = self.gain(labels), self.bias(labels)
        return cast(Tensor, self.norm(x) * gain[..., None, None] + bias[..., None, None])


class ImageNetGenerator(nn.Module):
    """The generator for larger images: the label enters through conditional batch norm.

    Args:
        image: channels, height, width.
        classes: number of labels.
        latent: length of the noise.
    """

    def __init__(self, image: tuple[int, int, int], classes: int, latent: int) -> None:
        super().__init__()
        channels, height, width = image
        self.latent = latent
        self.base_size, self.middle_size, self.full_size = _stages(height, width)
        self.project = nn.Linear(latent, _BASE_CHANNELS * self.base_size[0] * self.base_size[1])
        self.norm1 = ConditionalBatchNorm(_BASE_CHANNELS, classes)
        self.conv1 = nn.Conv2d(_BASE_CHANNELS, 128, 3, padding=1)
        self.norm2 = ConditionalBatchNorm(128, classes)
        self.conv2 = nn.Conv2d(128, 64, 3, padding=1)
        self.norm3 = ConditionalBatchNorm(64, classes)
        self.conv3 = nn.Conv2d(64, channels, 3, padding=1)
        self.norm4 = nn.BatchNorm2d(channels, affine=False)

    def forward(self, noise: Tensor, labels: Tensor) -> Tensor:
        """Images (B, C, H, W) for ``noise`` (B, latent) and int64 ``labels`` (B,)."""
        x = self.project(noise).view(-1, _BASE_CHANNELS, *self.base_size)
        x = F.interpolate(self.norm1(x, labels), self.middle_size)
        x = F.leaky_relu(self.norm2(self.conv1(x), labels), 0.2)
        x = F.interpolate(x, self.full_size)
        x = F.leaky_relu(self.norm3(self.conv2(x), labels), 0.2)
        return cast(Tensor, self.norm4(self.conv3(x).tanh()))


LARGEST_SMALL_IMAGE = 64


def build_generator(
    image: tuple[int, int, int], classes: int, latent: int
) -> SmallGenerator | ImageNetGenerator:
    """The published generator for an image size: small up to 64 pixels, ImageNet's above."""
    small = max(image[1:]) <= LARGEST_SMALL_IMAGE
    return (SmallGenerator if small else ImageNetGenerator)(image, classes, latent)
