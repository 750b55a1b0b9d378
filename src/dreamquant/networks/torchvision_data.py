"""Test splits of torchvision's data sets; they are read from disk and never downloaded."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from dreamquant.errors import DataError

# Only data sets that provide labels without decoding every image.
TEST_SPLITS: dict[str, dict[str, Any]] = {
    "CIFAR10": {"train": False},
    "CIFAR100": {"train": False},
    "FashionMNIST": {"train": False},
    "ImageNet": {"split": "val"},
    "KMNIST": {"train": False},
    "MNIST": {"train": False},
    "STL10": {"split": "test"},
    "SVHN": {"split": "test"},
    "USPS": {"train": False},
}


class TestSplit(Protocol):
    """The used part of the interface of a torchvision data set."""

    def __len__(self) -> int:
        """Number of images."""
        ...

    def __getitem__(self, index: int, /) -> tuple[Image.Image, int]:
        """One image and its label."""
        ...


def open_test_split(name: str, root: str | Path | None = None) -> tuple[TestSplit, list[int]]:
    """A torchvision data set's test split (ImageNet: validation) and all its labels.

    Args:
        name: class name in ``torchvision.datasets``; one of ``TEST_SPLITS``.
        root: the argument ``root`` of torchvision; by default the environment variable
            ``TORCHVISION_ROOT``, else ``./data``.

    Raises:
        DataError: the name is unknown, torchvision cannot be used, or the files are missing.
    """
    where = f"torchvision:{name}"
    if name not in TEST_SPLITS:
        raise DataError(
            f"the torchvision data set {name!r} is not supported",
            where=where,
            remedy=f"name one of {', '.join(TEST_SPLITS)}, or give the images as a folder",
        )
    try:
        from torchvision import datasets
    # A torchvision built for another torch raises RuntimeError or OSError, not ImportError.
    except (ImportError, RuntimeError, OSError) as error:
        raise DataError(
            f"torchvision cannot be imported: {error}",
            where=where,
            remedy="pip install 'dreamquant[zoo]', with a torchvision that matches torch",
        ) from error
    folder = Path(root or os.environ.get("TORCHVISION_ROOT", "data")).expanduser()
    try:
        split = getattr(datasets, name)(root=str(folder), **TEST_SPLITS[name])
    # Missing and damaged files raise different exceptions in different data sets.
    except Exception as error:
        raise DataError(
            f"torchvision cannot open {name}: {error}",
            where=str(folder),
            remedy="put the data set there first (nothing is downloaded), or name its folder: "
            f"torchvision:{name}:FOLDER, or TORCHVISION_ROOT",
        ) from error
    labels = split.targets if hasattr(split, "targets") else split.labels
    return split, [int(label) for label in labels]
