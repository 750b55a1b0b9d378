"""The input that a network expects, and the task of its outputs."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from dreamquant.errors import NetworkError
from dreamquant.networks.choices import Form, Kind, current_task

_MOST_VALUES = 2**25  # an image of 3,300 x 3,300 pixels


@dataclass(frozen=True)
class InputSpec:
    """Input and outputs of a network: all that is needed to evaluate images and to synthesize them.

    The network's input is ``(pixel / 255 - mean) / std`` for each channel of an image, so ``mean``
    and ``std`` are in units of [0, 1] pixels. For features, which are not pixels, it is
    ``(value - mean) / std``.

    Attributes:
        shape: shape of one input: channels, height, width of an image. An input of any other rank,
            such as 98 frames of 40 features, has one channel.
        mean: one value per channel.
        std: one positive value per channel.
        num_classes: number of logits. For outputs that are not logits, the number of classes that
            the origin gives, or 0.
        class_names: ``num_classes`` names, or empty if unknown.
        resize: evaluation images are scaled to this short side before the centre crop to
            ``shape``; ``None`` if images have the network's size.
        task: task of the network.
        outputs: names of the outputs in exported files.
        features: whether the input is not an image, but for example a spectrum.
        bgr: whether the channels are blue, green, red, as in OpenCV; ``mean`` and ``std`` have
            the same order.
        entry: name of the input in exported files.
        form: form of the input in exported files, if the user does not choose another.
        centre: mean of each column (last axis) of normalised features; empty for 0.
        spread: standard deviation of each column, positive; empty for 1.

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
        object.__setattr__(self, "task", current_task(self.task))
        if not self.shape or min(self.shape) < 1:
            raise NetworkError(
                f"{self.shape} is not an input shape",
                where="--input",
                remedy="give CxHxW, such as 3x32x32, or the sides of a feature map, such as 98x40",
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
                    f"{values} contains a value that is not a finite number",
                    where=option,
                    remedy="give finite numbers",
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
                f"an input of {' x '.join(map(str, self.shape))} has no colour channels",
                where="--bgr",
                remedy="leave the option out: it is for images with 3 channels",
            )
        if self.class_names and len(self.class_names) != self.num_classes:
            raise NetworkError(
                f"{len(self.class_names)} class names for {self.num_classes} classes",
                where="class_names",
                remedy="give one name per class, or none",
            )

    @property
    def channels(self) -> int:
        """Number of channels of an image or a volume (C, ...); 1 for any other input."""
        return self.shape[0] if len(self.shape) > 2 else 1

    @property
    def pixels(self) -> bool:
        """Whether mean and std can be those of pixels in [0, 1]."""
        return (
            not self.features and all(0 <= mean <= 1 for mean in self.mean) and max(self.std) <= 1
        )

    @property
    def plane(self) -> tuple[int, int, int]:
        """Channels, height and width of an image with the same number of values as the input."""
        if len(self.shape) < 3:
            return (1, 1, self.shape[0]) if len(self.shape) == 1 else (1, *self.shape)  # type: ignore[return-value]
        return math.prod(self.shape[:-2]), self.shape[-2], self.shape[-1]

    @property
    def image(self) -> tuple[int, int, int]:
        """Channels, height and width.

        Raises:
            NetworkError: the input is not an image.
        """
        if len(self.shape) != 3:
            raise NetworkError(
                f"an input of {' x '.join(map(str, self.shape))} is not an image (C, H, W)",
                where="--input",
                remedy="wrap the network so that it takes 1xHxW: x.squeeze(1) in its forward",
            )
        return self.shape[0], self.shape[1], self.shape[2]
