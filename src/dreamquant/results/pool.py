"""Pools on disk: synthetic images in shards, with a manifest of their origin.

Images are half-precision numbers in the units of the network's input: two bytes for a value, twice
the size of 8-bit pixels. Optimised images exceed the range of pixels and differ by less than one
pixel level, which eight bits would lose; half precision keeps three decimal digits.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from dreamquant.errors import DataError, ResultError, TrainingError
from dreamquant.networks.pixels import denormalise, in_order, standardise
from dreamquant.networks.spec import InputSpec
from dreamquant.results.files import read_json, sha256_file, write_tensors

POOL, SHEET = "pool.json", "images.png"
SCHEMA = 1
_AT_ONCE = 32  # number of images in a forward pass of the teacher, which limits the memory
_REMEDY = "make the pool again with `dreamquant dream`, or restore a copy"


def shard_name(index: int) -> str:
    """Name of the file of a shard."""
    return f"images-{index:05d}.safetensors"


@torch.no_grad()
def write_shard(
    folder: Path, index: int, images: Tensor, targets: Tensor, teacher: nn.Module
) -> dict[str, Any]:
    """Write images to a shard, and predict their classes with the teacher.

    Args:
        folder: folder of the pool.
        index: number of the shard, from 0.
        images: normalised images (N, C, H, W).
        targets: labels (N,) or soft labels (N, classes).
        teacher: the teacher in eval mode.

    Returns:
        For the manifest: file, images, bytes and checksum; class and confidence of each image,
            which is the teacher's probability of the class.

    Raises:
        ResultError: the shard cannot be written.
        TrainingError: an image is not finite.
    """
    kept = images.to(torch.float16)
    if not kept.isfinite().all():
        raise TrainingError(
            "some images have values that are not finite",
            where=f"shard {index}",
            remedy="try another --seed, or a method whose images are clamped, such as minutes",
        )
    seen = [teacher(few.float()).softmax(1).max(1) for few in torch.split(kept, _AT_ONCE)]
    confidence, classes = (torch.cat(each) for each in zip(*seen, strict=True))
    path = folder / shard_name(index)
    tensors = {"images": kept, "targets": targets, "classes": classes, "confidence": confidence}
    write_tensors(path, tensors, {"format": "dreamquant pool", "shard": str(index)})
    return {
        "file": path.name,
        "images": len(kept),
        "bytes": path.stat().st_size,
        "sha256": sha256_file(path),
        "classes": classes.tolist(),
        "confidence": [round(value, 4) for value in confidence.tolist()],
    }


@dataclass(frozen=True)
class KeptPool:
    """A pool on disk, read row by row through memory maps.

    Attributes:
        manifest: manifest of the pool.
        sha256: hash of the manifest, which contains the checksums of all shards.
        files: one open file for each shard.
        ends: number of images up to the end of each shard.
        targets: labels (N,) or soft labels (N, classes) of all images.
        own: input of the network that it was made for.
        spec: input of the network that will use it.
    """

    manifest: Mapping[str, Any]
    sha256: str
    files: Sequence[Any]
    ends: Sequence[int]
    targets: Tensor
    own: InputSpec
    spec: InputSpec

    def __len__(self) -> int:
        """Number of images."""
        return self.ends[-1]

    def summary(self) -> dict[str, Any]:
        """The main figures of the pool."""
        manifest, seen = self.manifest, self.manifest["confidence"]
        return {
            "method": manifest["method"]["name"],
            **{name: manifest[name] for name in ("count", "seed", "mib", "seconds")},
            "confidence": sum(seen) / len(seen),
            "classes": len(set(manifest["classes"])),
        }

    def read(self, rows: Sequence[int]) -> Tensor:
        """Images (B, C, H, W) of these rows, float32, in the units of the network's input."""
        images = torch.cat([self._row(row) for row in rows]).float()
        if _pixels_of(self.own) == _pixels_of(self.spec):
            return images
        return standardise(in_order(denormalise(images, self.own), self.spec), self.spec)

    def _row(self, row: int) -> Tensor:
        shard = bisect_right(self.ends, row)
        start = row - (self.ends[shard - 1] if shard else 0)
        taken: Tensor = self.files[shard].get_slice("images")[start : start + 1]
        return taken


def _pixels_of(spec: InputSpec) -> tuple[Any, ...]:
    return spec.mean, spec.std, spec.bgr


def open_pool(folder: Path, spec: InputSpec) -> KeptPool:
    """Open a pool for a network.

    Args:
        folder: folder with a manifest.
        spec: input of the network.

    Raises:
        DataError: the pool is damaged or of a later version, or the size of its images is not the
                size of the network's input.
    """
    manifest = _manifest(folder)
    try:
        own = _input(manifest)
        shards = [(str(each["file"]), int(each["images"])) for each in manifest["shards"]]
        sums = [str(each["sha256"]) for each in manifest["shards"]]
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(f"its manifest is damaged: {error!r}", folder / POOL) from error
    if own.shape != spec.shape:
        sides = [" x ".join(map(str, each.shape)) for each in (own, spec)]
        raise DataError(
            f"the pool's images are {sides[0]}, but the network takes {sides[1]}",
            where=str(folder),
            remedy="make a pool for this network with `dreamquant dream`",
        )
    paths = [folder / Path(name).name for name, _ in shards]
    for path, checksum in zip(paths, sums, strict=True):
        _check(path, checksum)
    files = [_opened(path) for path in paths]
    targets = torch.cat([file.get_tensor("targets") for file in files])
    ends = list(accumulate(count for _, count in shards))
    digest = hashlib.sha256((folder / POOL).read_bytes()).hexdigest()
    return KeptPool(manifest, digest, files, ends, targets, own, spec)


def _manifest(folder: Path) -> dict[str, Any]:
    try:
        manifest = read_json(folder / POOL)
    except ResultError as error:
        raise DataError(error.what, where=error.where, remedy=_REMEDY) from error
    if manifest.get("schema") != SCHEMA:
        raise DataError(
            f"the pool has schema {manifest.get('schema')!r}, this version reads {SCHEMA}",
            where=str(folder / POOL),
            remedy="use the version of dreamquant that wrote it",
        )
    return manifest


def _input(manifest: Mapping[str, Any]) -> InputSpec:
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in manifest["network"]["input"].items()
    }
    return InputSpec(**values)


def _check(path: Path, checksum: str) -> None:
    try:
        found = sha256_file(path)
    except OSError as error:
        raise _damaged(f"{path.name} cannot be read: {error.strerror}", path) from error
    if found != checksum:
        raise _damaged(f"{path.name} is not the file that the manifest lists", path)


def _opened(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt")
    except SafetensorError as error:
        raise _damaged(f"{path.name} is not a complete safetensors file: {error}", path) from error


def _damaged(what: str, where: Path) -> DataError:
    return DataError(f"the pool cannot be used: {what}", where=str(where), remedy=_REMEDY)
