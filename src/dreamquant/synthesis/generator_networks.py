"""Conditional generators of normalised images (GDFQ, Xu et al., ECCV 2020, and its successors).

Both map noise z ~ N(0, I) of shape (B, latent) and targets to images (B, C, H, W) with mean 0 and
variance 1 in each channel over the batch, which is how the teacher's input is normalised. Targets
are labels (B,), or soft targets (B, classes) that mix the labels' embeddings. Where images have a
condition (B, n), such as an attention centre, its embedding is appended to the noise (ACQ; this
form is ours).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dreamquant import distributed
from dreamquant.networks.channel_statistics import channel_statistics
from dreamquant.synthesis.embeddings import NoiseAlone, TimesNoise, look_up

# The released code passes 0.8 as epsilon where it means the momentum. The generators behave
# accordingly, so the value is kept.
INNER_EPSILON = 0.8
_BASE_CHANNELS = 128


_CONDITION_FEATURES = 32


class ConditionEmbedding(nn.Module):
    """Appends the embedding of a condition to the noise, where there is a condition.

    Args:
        width: number of values of the condition; 0 without a condition.

    Attributes:
        features: number of values that it appends.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.features = _CONDITION_FEATURES if width else 0
        self.embed = (
            nn.Sequential(
                nn.Linear(width, _CONDITION_FEATURES),
                nn.LeakyReLU(0.2),
                nn.Linear(_CONDITION_FEATURES, _CONDITION_FEATURES),
            )
            if width
            else None
        )

    def forward(self, noise: Tensor, condition: Tensor | None) -> Tensor:
        """(B, latent + features) for ``condition`` (B, width)."""
        if self.embed is None:
            return noise
        return torch.cat([noise, self.embed(condition)], dim=1)


class UpsampledConv2d(nn.Conv2d):
    """A 3×3 convolution of the input, which is enlarged to ``size`` by repeating pixels.

    Where the sides double, repeating equals putting zeros between the pixels and then summing each
    2×2 neighbourhood. The convolution comes before the sums, as a transposed convolution of the
    small input. This takes a quarter of the products, and the enlarged input is never stored. There
    is no bias, because the batch norm after it would remove it.

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
    """Batch norm by the statistics of the batch, over all processes where there are several."""

    def __init__(self, features: int, *, eps: float = 1e-5, affine: bool = True) -> None:
        super().__init__(features, eps=eps, affine=affine, track_running_stats=False)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (B, F, H, W), normalised."""
        if distributed.count() == 1:
            return super().forward(x)
        mean, var = distributed.moments(*channel_statistics(x))
        scale = torch.rsqrt(var + self.eps)
        if self.affine:
            scale = scale * self.weight
        shift = -mean * scale
        if self.affine:
            shift = shift + self.bias
        return x * scale[:, None, None] + shift[:, None, None]


def _stages(height: int, width: int) -> list[tuple[int, int]]:
    """The sizes from a quarter of the image, rounded up, to the image itself."""
    return [(-(-height // part), -(-width // part)) for part in (4, 2, 1)]


class GeneratorNetwork(nn.Module):
    """The first part of generators: from noise to features of a quarter of the image's size.

    Args:
        image: channels, height, width.
        latent: length of the noise.
        condition: number of values of the condition, such as 2 for an attention centre.

    Attributes:
        embedding: combines noise and targets into the network's input, of the noise's length.
    """

    embedding: nn.Module

    def __init__(self, image: tuple[int, int, int], latent: int, *, condition: int) -> None:
        super().__init__()
        self.channels, self.latent = image[0], latent
        self.base, self.middle, self.full = _stages(*image[1:])
        self.condition = ConditionEmbedding(condition)
        features = _BASE_CHANNELS * self.base[0] * self.base[1]
        self.project = nn.Linear(latent + self.condition.features, features)

    def begin(self, noise: Tensor, targets: Tensor, condition: Tensor | None) -> Tensor:
        """Features (B, 128, H / 4, W / 4), sides rounded up."""
        asked = self.condition(self.embedding(noise, targets), condition)
        features = self.project(asked).view(-1, _BASE_CHANNELS, *self.base)
        # Convolutions keep the memory layout of their input, so this choice reaches the images and
        # both networks: convolutions are fastest in channels-last.
        return cast(Tensor, features.contiguous(memory_format=torch.channels_last))


class SmallGenerator(GeneratorNetwork):
    """The generator for images of up to 64 pixels; by default the label multiplies the noise."""

    def __init__(
        self,
        image: tuple[int, int, int],
        classes: int,
        latent: int,
        *,
        condition: int = 0,
        embedding: nn.Module | None = None,
    ) -> None:
        super().__init__(image, latent, condition=condition)
        # After the first layer: results on record began with the same random numbers.
        self.embedding = TimesNoise(classes, latent) if embedding is None else embedding
        self.decode = nn.Sequential(
            BatchNorm(_BASE_CHANNELS),
            UpsampledConv2d(_BASE_CHANNELS, 128, self.middle),
            BatchNorm(128, eps=INNER_EPSILON),
            nn.LeakyReLU(0.2, inplace=True),
            UpsampledConv2d(128, 64, self.full),
            BatchNorm(64, eps=INNER_EPSILON),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(64, self.channels, 3, padding=1),
            nn.Tanh(),
            BatchNorm(self.channels, affine=False),
        )

    def forward(self, noise: Tensor, targets: Tensor, condition: Tensor | None = None) -> Tensor:
        """Images (B, C, H, W) for ``noise`` (B, latent), targets and condition (B, n)."""
        return cast(Tensor, self.decode(self.begin(noise, targets, condition)))


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


class ImageNetGenerator(GeneratorNetwork):
    """The generator for larger images: the label enters through conditional batch norm."""

    def __init__(
        self,
        image: tuple[int, int, int],
        classes: int,
        latent: int,
        *,
        condition: int = 0,
        embedding: nn.Module | None = None,
    ) -> None:
        super().__init__(image, latent, condition=condition)
        self.embedding = NoiseAlone() if embedding is None else embedding
        self.norm1 = ConditionalBatchNorm(_BASE_CHANNELS, classes)
        self.conv1 = UpsampledConv2d(_BASE_CHANNELS, 128, self.middle)
        self.norm2 = ConditionalBatchNorm(128, classes)
        self.conv2 = UpsampledConv2d(128, 64, self.full)
        self.norm3 = ConditionalBatchNorm(64, classes)
        self.conv3 = nn.Conv2d(64, self.channels, 3, padding=1)
        self.norm4 = BatchNorm(self.channels, affine=False)

    def forward(self, noise: Tensor, targets: Tensor, condition: Tensor | None = None) -> Tensor:
        """Images (B, C, H, W) for ``noise`` (B, latent), targets and condition (B, n)."""
        x = self.conv1(self.norm1(self.begin(noise, targets, condition), targets))
        x = self.conv2(F.leaky_relu(self.norm2(x, targets), 0.2))
        x = F.leaky_relu(self.norm3(x, targets), 0.2)
        return cast(Tensor, self.norm4(self.conv3(x).tanh()))


class LatentGenerator(nn.Module):
    """GENIE's small generator, which is new for each batch and takes no labels.

    Args:
        image: channels, height, width.
        latent: length of its input.
        widths: channels at a quarter and at half of the image's size.
    """

    def __init__(self, image: tuple[int, int, int], latent: int, widths: tuple[int, int]) -> None:
        super().__init__()
        wide, narrow = widths
        base, middle, full = _stages(*image[1:])
        self.decode = nn.Sequential(
            nn.Linear(latent, wide * base[0] * base[1]),
            nn.Unflatten(1, (wide, *base)),
            BatchNorm(wide),
            UpsampledConv2d(wide, narrow, middle),
            BatchNorm(narrow),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Upsample(full),
            nn.Conv2d(narrow, image[0], 3, padding=1),
            nn.Tanh(),
            BatchNorm(image[0], affine=False),
        )

    def forward(self, latent: Tensor) -> Tensor:
        """Images (B, C, H, W) of ``latent`` (B, latent)."""
        return cast(Tensor, self.decode(latent))


LARGEST_SMALL_IMAGE = 64


def build_generator(
    image: tuple[int, int, int],
    classes: int,
    latent: int,
    *,
    condition: int = 0,
    embedding: nn.Module | None = None,
) -> SmallGenerator | ImageNetGenerator:
    """The published generator for an image size: the small one up to 64 pixels, else ImageNet's."""
    small = max(image[1:]) <= LARGEST_SMALL_IMAGE
    kind = SmallGenerator if small else ImageNetGenerator
    return kind(image, classes, latent, condition=condition, embedding=embedding)


class Interleaved(nn.Module):
    """Several generators that make the images of a batch in turn.

    Args:
        generators: in the order of their rows.
    """

    def __init__(self, generators: Sequence[GeneratorNetwork]) -> None:
        super().__init__()
        self.generators = nn.ModuleList(generators)

    def forward(self, noise: Tensor, *asked: Tensor) -> Tensor:
        """Images (B, C, H, W) for noise (B, latent), targets and condition."""
        count = len(self.generators)
        made = [
            generator(noise[first::count], *(each[first::count] for each in asked))
            for first, generator in enumerate(self.generators)
        ]
        return torch.stack(made, 1).flatten(0, 1)
