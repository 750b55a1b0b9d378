"""Conditional generators of normalised images (GDFQ, Xu et al., ECCV 2020, and its successors).

Both turn noise z ~ N(0, I) of shape (B, latent) and targets into images (B, C, H, W) with zero
mean and unit variance per channel over the batch: the space that the teacher's first layer sees.
Targets are labels (B,), or soft ones (B, classes) that mix the labels' embeddings. Where images are
also asked for an attention centre (B, 2), its embedding joins the noise (ACQ; the form is ours).
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dreamquant import processes
from dreamquant.networks.taps import channel_statistics

# The released code passes 0.8 where the momentum was meant; it is part of how these generators
# behave, so it is kept and named.
INNER_EPSILON = 0.8
_BASE_CHANNELS = 128


_CENTRE_FEATURES = 32


def look_up(embedding: nn.Embedding, targets: Tensor) -> Tensor:
    """The embeddings (B, d) of labels (B,), or their mixture for soft targets (B, classes)."""
    if targets.is_floating_point():
        return targets @ embedding.weight
    return cast(Tensor, embedding(targets))


class CentreEmbedding(nn.Module):
    """Joins the embedding of an attention centre to the noise, where centres are asked for.

    Attributes:
        features: how many it adds to the noise.
    """

    def __init__(self, centred: bool) -> None:
        super().__init__()
        self.features = _CENTRE_FEATURES if centred else 0
        self.embed = (
            nn.Sequential(
                nn.Linear(2, _CENTRE_FEATURES),
                nn.LeakyReLU(0.2),
                nn.Linear(_CENTRE_FEATURES, _CENTRE_FEATURES),
            )
            if centred
            else None
        )

    def forward(self, noise: Tensor, centres: Tensor | None) -> Tensor:
        """(B, latent + features); ``centres`` (B, 2) in [0, 1]."""
        if self.embed is None:
            return noise
        return torch.cat([noise, self.embed(centres)], dim=1)


class UpsampledConv2d(nn.Conv2d):
    """A 3×3 convolution of the input enlarged to ``size`` by repeating pixels.

    Where the sides double, repeating is to put zeros between the pixels and then to add up each
    2×2 neighbourhood. The convolution comes before the sums and as a transposed one of the small
    input: a quarter of the products, and the enlarged input is never stored. It has no bias: the
    batch norm that follows would take it away again.

    Args:
        features_in: channels of the input.
        features_out: channels of the output.
        size: height and width of the output.
    """

    def __init__(self, features_in: int, features_out: int, size: tuple[int, int]) -> None:
        super().__init__(features_in, features_out, 3, padding=1, bias=False)
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        """(B, features_out, *size) for ``x`` (B, features_in, h, w)."""
        if self.size != (2 * x.shape[2], 2 * x.shape[3]):
            return super().forward(F.interpolate(x, self.size))
        taps = self.weight.flip(2, 3).transpose(0, 1)
        parts = F.conv_transpose2d(x, taps, stride=2)
        return F.avg_pool2d(parts, 2, stride=1, divisor_override=1)


class BatchNorm(nn.BatchNorm2d):
    """Batch norm by the statistics of the batch, that of all processes where they are together."""

    def __init__(self, features: int, *, eps: float = 1e-5, affine: bool = True) -> None:
        super().__init__(features, eps=eps, affine=affine, track_running_stats=False)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (B, F, H, W), normalised."""
        if processes.count() == 1:
            return super().forward(x)
        mean, var = processes.moments(*channel_statistics(x))
        scale = torch.rsqrt(var + self.eps)
        if self.affine:
            scale = scale * self.weight
        shift = -mean * scale
        if self.affine:
            shift = shift + self.bias
        return x * scale[:, None, None] + shift[:, None, None]


def _stages(height: int, width: int) -> list[tuple[int, int]]:
    """Sizes from the base, a quarter of the image rounded up, to the image itself."""
    return [(-(-height // part), -(-width // part)) for part in (4, 2, 1)]


def _unflatten(x: Tensor, size: tuple[int, int]) -> Tensor:
    # Convolutions keep their input's layout, so this choice reaches the images and from there
    # both networks: channels-last is the one that convolutions are quickest in.
    return x.view(-1, _BASE_CHANNELS, *size).contiguous(memory_format=torch.channels_last)


class SmallGenerator(nn.Module):
    """The generator for images of up to 64 pixels: the label multiplies the noise.

    Args:
        image: channels, height, width.
        classes: number of labels.
        latent: length of the noise.
        centred: whether images are asked for an attention centre.
    """

    def __init__(
        self, image: tuple[int, int, int], classes: int, latent: int, *, centred: bool = False
    ) -> None:
        super().__init__()
        channels, height, width = image
        base, middle, full = _stages(height, width)
        self.latent, self.base = latent, base
        self.centre = CentreEmbedding(centred)
        self.embedding = nn.Embedding(classes, latent)
        self.project = nn.Linear(latent + self.centre.features, _BASE_CHANNELS * base[0] * base[1])
        self.decode = nn.Sequential(
            BatchNorm(_BASE_CHANNELS),
            UpsampledConv2d(_BASE_CHANNELS, 128, middle),
            BatchNorm(128, eps=INNER_EPSILON),
            nn.LeakyReLU(0.2, inplace=True),
            UpsampledConv2d(128, 64, full),
            BatchNorm(64, eps=INNER_EPSILON),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(64, channels, 3, padding=1),
            nn.Tanh(),
            BatchNorm(channels, affine=False),
        )

    def forward(self, noise: Tensor, targets: Tensor, centres: Tensor | None = None) -> Tensor:
        """Images (B, C, H, W) for ``noise`` (B, latent), targets and centres (B, 2)."""
        joined = self.centre(look_up(self.embedding, targets) * noise, centres)
        return cast(Tensor, self.decode(_unflatten(self.project(joined), self.base)))


class ConditionalBatchNorm(nn.Module):
    """Batch norm whose gain and bias are looked up by label (initially 1 and 0)."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.norm = BatchNorm(features, eps=INNER_EPSILON, affine=False)
        self.gain = nn.Embedding(classes, features)
        self.bias = nn.Embedding(classes, features)
        nn.init.ones_(self.gain.weight)
        nn.init.zeros_(self.bias.weight)

    def forward(self, x: Tensor, targets: Tensor) -> Tensor:
        """Normalised ``x`` (B, F, H, W), scaled and shifted per target."""
        gain, bias = look_up(self.gain, targets), look_up(self.bias, targets)
        return cast(Tensor, self.norm(x) * gain[..., None, None] + bias[..., None, None])


class ImageNetGenerator(nn.Module):
    """The generator for larger images: the label enters through conditional batch norm.

    Args:
        image: channels, height, width.
        classes: number of labels.
        latent: length of the noise.
        centred: whether images are asked for an attention centre.
    """

    def __init__(
        self, image: tuple[int, int, int], classes: int, latent: int, *, centred: bool = False
    ) -> None:
        super().__init__()
        channels, height, width = image
        self.latent = latent
        self.centre = CentreEmbedding(centred)
        base, middle, full = _stages(height, width)
        self.base = base
        self.project = nn.Linear(latent + self.centre.features, _BASE_CHANNELS * base[0] * base[1])
        self.norm1 = ConditionalBatchNorm(_BASE_CHANNELS, classes)
        self.conv1 = UpsampledConv2d(_BASE_CHANNELS, 128, middle)
        self.norm2 = ConditionalBatchNorm(128, classes)
        self.conv2 = UpsampledConv2d(128, 64, full)
        self.norm3 = ConditionalBatchNorm(64, classes)
        self.conv3 = nn.Conv2d(64, channels, 3, padding=1)
        self.norm4 = BatchNorm(channels, affine=False)

    def forward(self, noise: Tensor, targets: Tensor, centres: Tensor | None = None) -> Tensor:
        """Images (B, C, H, W) for ``noise`` (B, latent), targets and centres (B, 2)."""
        x = _unflatten(self.project(self.centre(noise, centres)), self.base)
        x = self.conv1(self.norm1(x, targets))
        x = self.conv2(F.leaky_relu(self.norm2(x, targets), 0.2))
        x = F.leaky_relu(self.norm3(x, targets), 0.2)
        return cast(Tensor, self.norm4(self.conv3(x).tanh()))


LARGEST_SMALL_IMAGE = 64


def build_generator(
    image: tuple[int, int, int], classes: int, latent: int, *, centred: bool = False
) -> SmallGenerator | ImageNetGenerator:
    """The published generator for an image size: small up to 64 pixels, ImageNet's above."""
    small = max(image[1:]) <= LARGEST_SMALL_IMAGE
    kind = SmallGenerator if small else ImageNetGenerator
    return kind(image, classes, latent, centred=centred)
