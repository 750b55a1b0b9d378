"""Images that replace a method's own: a stored pool, procedural images, or the user's pictures."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import torch

from dreamquant.errors import DataError, MethodError
from dreamquant.evaluation.pictures import open_pictures
from dreamquant.methods.method import Method
from dreamquant.networks.load import Network
from dreamquant.results.pool import POOL, open_pool
from dreamquant.synthesis.drawn import Procedural
from dreamquant.synthesis.filters import filtered
from dreamquant.synthesis.given import Given
from dreamquant.synthesis.kinds import KINDS
from dreamquant.synthesis.source import Source


def kept_images(method: Method, where: str) -> Source:
    """The image source of a method that stores its images.

    Args:
        method: any method.
        where: option that asks for them, for the error.

    Raises:
        MethodError: the method has no images, or trains a generator in turns with the student.
    """
    remedy = "choose a method that keeps its images, such as minutes, hast or genie"
    if method.images is None:
        raise MethodError(f"{method.name} reads no images", where=where, remedy=remedy)
    if not method.images.kept:
        raise MethodError(
            f"{method.name} trains a generator in turns with the student: its images exist only "
            "while it learns, and others cannot stand in for them",
            where=where,
            remedy=remedy,
        )
    return method.images


def with_images(method: Method, asked: str, teacher: Network) -> Method:
    """The method with other images in place of its own; procedural ones have the same number.

    Args:
        method: resolved.
        asked: a kind of procedural images, or the path of a pool or of pictures.
        teacher: the network that will see them.

    Raises:
        MethodError: the method uses no images, or trains a generator in turns with the student.
        DataError: there are no images, or they do not fit the network.

    Warns:
        UserWarning: a pool was made for another teacher.
    """
    size = kept_images(method, "--images").kept
    if any(part.changes_images for part in method.recovery):
        raise MethodError(
            f"{method.name} goes on optimising its images, and those that are given stay",
            where="--images",
            remedy="leave it out, or choose a method such as genie",
        )
    if asked in KINDS:
        return replace(method, images=Procedural(kind=KINDS[asked], size=size))
    path = Path(asked).expanduser()
    if not path.exists():
        raise DataError(
            f"there is nothing at {asked}, and no kind of images has that name",
            where="--images",
            remedy=f"give a pool, a folder, .tar or .npz of images, or {', '.join(KINDS)}",
        )
    given = _pool(path, asked, teacher) if (path / POOL).is_file() else _own(path, asked, teacher)
    return replace(method, images=given)


def selected(method: Method, fraction: float, teacher: Network) -> Method:
    """The method with those of given pictures that pass GenQ's filters.

    Args:
        method: whose images may be given.
        fraction: of the pictures, at most.
        teacher: that is to see them.

    Raises:
        MethodError: no pictures are given, the network is no classifier, or there is no such
            fraction.
        DataError: no picture passes.
    """
    where, given = f"--select {fraction}", method.images
    if not 0 < fraction <= 1:
        raise MethodError("a fraction is more than 0 and at most 1", where=where, remedy="give 0.5")
    if not isinstance(given, Given):
        raise MethodError(
            "--select chooses from pictures that you give, and none are given",
            where=where,
            remedy="add --images FOLDER",
        )
    if teacher.input.task != "classification":
        raise MethodError(
            f"pictures are selected by logits of classes, and this network's task is "
            f"{teacher.input.task}",
            where=where,
            remedy="leave the option out",
        )
    example = torch.zeros(2, *teacher.input.shape)
    images = filtered(given, teacher.module, example, fraction)
    name = f"{len(images.rows)} of {given.size} files that pass the filters at {fraction}"
    return replace(method, images=replace(images, by=name))


def _pool(path: Path, asked: str, teacher: Network) -> Given:
    pool = open_pool(path, teacher.input)
    made_for = str(pool.manifest["network"]["weights_sha256"])
    if made_for != teacher.weights_sha256:
        warnings.warn(
            f"{asked} was made for another network: its images do not suit this one as its own "
            "would. The protocol says so.",
            stacklevel=3,
        )
    by = str(pool.manifest["method"]["name"])
    return Given("pool", asked, len(pool), pool.sha256, pool, by, made_for)


def _own(path: Path, asked: str, teacher: Network) -> Given:
    pictures = open_pictures(path, teacher.input)
    return Given("pictures", asked, len(pictures), pictures.sha256, pictures)


def identity(images: Source | None) -> dict[str, str]:
    """The identity of given images, which must be the same in a resumed run."""
    return {"images_sha256": images.sha256} if isinstance(images, Given) else {}


def told(images: Source | None, teacher: Network) -> str:
    """The protocol's description of images that replace a method's own."""
    if isinstance(images, Procedural):
        return f"procedural ({type(images.kind).__name__}), {images.size} images"
    assert isinstance(images, Given)
    if images.kind == "pictures":
        return f"given, {images.by or f'{images.size} files'}"
    other = "" if images.teacher_sha256 == teacher.weights_sha256 else " for another network"
    return f"kept pool by {images.by}{other}, {images.size} images"
