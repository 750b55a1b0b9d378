"""What a network expects of its input, and what its outputs are for."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from dreamquant.errors import NetworkError
from dreamquant.networks.choices import Form, Kind

_MOST_VALUES = 2**25  # an image of 3,300 x 3,300 pixels


@dataclass(frozen=True)
class InputSpec:
    """What a network takes and gives: all that is needed to show it an image, or to invent one.

    A network sees ``(pixel / 255 - mean) / std`` per channel of images; ``mean`` and ``std`` are
    therefore in units of [0, 1] pixels. Of features that are no pixels it sees
    ``(value - mean) / std``.

    Attributes:
        shape: of one input: channels, height, width of an image; any other rank, such as 98 frames
            of 40 features, has one channel.
        mean: one per channel.
        std: one per channel, positive.
        num_classes: width of the logits; of tensors that are no logits, how many classes their
            origin says there are, or 0.
        class_names: as many as ``num_classes``, or empty where unknown.
        resize: short side to which evaluation images are scaled before the centre crop to
            ``shape``; ``None`` where images come at the network's size.
        task: what the outputs are for.
        outputs: their names in exported files.
        features: whether the input holds numbers that are no pixels, such as a spectrum.
        bgr: whether the channels are blue, green, red, as OpenCV has them; ``mean`` and ``std``
            are in the same order.
        entry: name of the input in exported files.
        form: how they take it, where nothing else is asked for.
        centre: of features, the mean of each column (last axis) of what the network sees; empty
            for 0.
        spread: likewise the deviation, positive; empty for 1.

    Raises:
        NetworkError: lengths disagree, or a value is impossible.
    """

    shape: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    num_classes: int
    class_names: tuple[str, ...] = field(default=())
    resize: int | None = None
    task: Kind = "classification"
    outputs: tuple[str, ...] = ("logits",)
    features: bool = False
    bgr: bool = False
    entry: str = "images"
    form: Form = "nchw"
    centre: tuple[float, ...] = ()
    spread: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not self.shape or min(self.shape) < 1:
            raise NetworkError(
                f"{self.shape} is no input shape",
                where="--input",
                remedy="give CxHxW, as 3x32x32, or the sides of a feature map, as 98x40",
            )
        if math.prod(self.shape) > _MOST_VALUES:
            raise NetworkError(
                f"an input of {' x '.join(map(str, self.shape))} is too large",
                where="--input",
                remedy=f"give a shape of at most {_MOST_VALUES:,} values",
            )
        channels = self.channels
        for option, values in (("--mean", self.mean), ("--std", self.std)):
            if len(values) != channels:
                raise NetworkError(
                    f"{len(values)} values for {channels} input channels",
                    where=option,
                    remedy="give one number per channel, separated by commas",
                )
            if not all(math.isfinite(value) for value in values):
                raise NetworkError(
                    f"{values} holds no number", where=option, remedy="give finite numbers"
                )
        if min(self.std) <= 0:
            raise NetworkError(
                f"std {self.std} is not positive", where="--std", remedy="give numbers above 0"
            )
        if self.num_classes < 2 and self.task in ("classification", "segmentation"):
            raise NetworkError(
                f"{self.num_classes} classes",
                where="num_classes",
                remedy="give at least 2; a network with one logit counts as two classes",
            )
        if self.bgr and (self.features or len(self.shape) != 3 or self.channels != 3):
            raise NetworkError(
                f"an input of {' x '.join(map(str, self.shape))} has no blue, green and red",
                where="--bgr",
                remedy="leave it out: it is for images of 3 channels",
            )
        if self.class_names and len(self.class_names) != self.num_classes:
            raise NetworkError(
                f"{len(self.class_names)} class names for {self.num_classes} classes",
                where="class_names",
            )

    @property
    def channels(self) -> int:
        """Of an image or a volume, (C, ...) with two sides or more; 1 of anything else."""
        return self.shape[0] if len(self.shape) > 2 else 1

    @property
    def pixels(self) -> bool:
        """Whether the input can be pixels: features have other means and deviations than [0, 1]."""
        return (
            not self.features and all(0 <= mean <= 1 for mean in self.mean) and max(self.std) <= 1
        )

    @property
    def plane(self) -> tuple[int, int, int]:
        """Channels, height and width of an image of as many values, of an input of any rank."""
        if len(self.shape) < 3:
            return (1, 1, self.shape[0]) if len(self.shape) == 1 else (1, *self.shape)  # type: ignore[return-value]
        return math.prod(self.shape[:-2]), self.shape[-2], self.shape[-1]

    @property
    def image(self) -> tuple[int, int, int]:
        """Channels, height and width.

        Raises:
            NetworkError: the input is no image.
        """
        if len(self.shape) != 3:
            raise NetworkError(
                f"an input of {' x '.join(map(str, self.shape))} is no image (C, H, W)",
                where="--input",
                remedy="wrap the network so that it takes 1xHxW: x.squeeze(1) in its forward",
            )
        return self.shape[0], self.shape[1], self.shape[2]
