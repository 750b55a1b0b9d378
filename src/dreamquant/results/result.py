"""A result: the quantized network and its manifest, as one folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dreamquant.diagnostics.figure import picture
from dreamquant.errors import DreamQuantError, NetworkError, ResultError, WeightsError
from dreamquant.evaluation.data import open_images
from dreamquant.evaluation.metrics import Evaluation, evaluate
from dreamquant.networks.checkpoints import load_weights
from dreamquant.networks.endings import as_given
from dreamquant.networks.load import build_module, ready_copy
from dreamquant.networks.onnx_file import names_onnx_file
from dreamquant.networks.spec import InputSpec
from dreamquant.networks.weights import state_sha256
from dreamquant.networks.zoo import one_line
from dreamquant.quantization.convert import convert
from dreamquant.quantization.layers import Student
from dreamquant.quantization.prepare import restructured
from dreamquant.quantization.scheme import Scheme
from dreamquant.results.files import (
    make_folder,
    read_tensors,
    sha256_file,
    write_bytes,
    write_json,
    write_tensors,
)
from dreamquant.results.manifest import (
    MANIFEST,
    Origin,
    read_checksum,
    read_input,
    read_manifest,
    read_origin,
    read_scheme,
    read_summary,
)
from dreamquant.results.samples import encode_tiles, save_samples
from dreamquant.results.student import decode, encode

CHECKPOINT, LOG = "checkpoint", "log"
STUDENT, SAMPLES, ANALYSIS = "student.safetensors", "samples.png", "analysis.json"
REPORT = "report.html"
DIAGNOSTICS, DIAGNOSTICS_PICTURE = "diagnostics.json", "diagnostics.png"


@dataclass(frozen=True)
class Samples:
    """Synthetic images to look at.

    Attributes:
        images: (N, C, H, W), normalised.
        targets: (N,) labels asked for.
        confidence: (N,) the teacher's probability of them.
    """

    images: Tensor
    targets: Tensor
    confidence: Tensor


@dataclass
class Result:
    """A quantized network.

    Attributes:
        model: the student, on the CPU, in eval mode: logits (B, classes) of normalised images.
        manifest: what was done and measured, as plain JSON values.
        samples: synthetic images, for a result made in this process.
        teacher: the network it came from, likewise.
        diagnostics: what the papers diagnose, where it was asked for, likewise.
        analysis: where accuracy went, as plain JSON values, likewise.
        after_save: called with the folder once all of the result is in it.
    """

    model: Student
    manifest: dict[str, Any]
    samples: Samples | None = None
    teacher: nn.Module | None = None
    diagnostics: dict[str, Any] | None = None
    analysis: dict[str, Any] | None = None
    after_save: Callable[[Path], None] | None = None

    @property
    def input(self) -> InputSpec:
        """What the network expects."""
        return read_input(self.manifest, Path())

    def summary(self) -> dict[str, Any]:
        """The headline, as the command line prints it with ``--json``.

        Raises:
            ResultError: the manifest is damaged.
        """
        return read_summary(self.manifest, Path())

    def evaluate(self, data: str | Path, *, limit: int | None = None) -> Evaluation:
        """Accuracy on labelled images, agreement with the teacher where it is at hand.

        Raises:
            DataError: the images cannot be read or do not fit the network.
        """
        images = open_images(data, self.input, limit=limit)
        return evaluate(self.model, images, teacher=self.teacher)

    def save(self, folder: str | Path) -> None:
        """Write the result folder; the manifest comes last, so that a folder with one is whole.

        Raises:
            ResultError: the folder already holds a result, or cannot be written.
        """
        folder = Path(folder)
        claim_folder(folder)
        write_tensors(folder / STUDENT, encode(self.model), {"format": "dreamquant student 1"})
        files = [STUDENT]
        if self.samples is not None:
            s = self.samples
            save_samples(folder / SAMPLES, s.images, self.input, s.targets, s.confidence)
            files.append(SAMPLES)
        if self.diagnostics is not None:
            write_json(folder / DIAGNOSTICS, self.diagnostics)
            write_bytes(folder / DIAGNOSTICS_PICTURE, picture(self.diagnostics, self._title()))
            files += [DIAGNOSTICS, DIAGNOSTICS_PICTURE]
        if self.analysis is not None:
            write_json(folder / ANALYSIS, self.analysis | {"samples": self._tiles()})
            files.append(ANALYSIS)
        self.manifest["files"] = {
            name: {"sha256": sha256_file(folder / name), "bytes": (folder / name).stat().st_size}
            for name in files
        }
        write_json(folder / MANIFEST, self.manifest)
        self.conclude(folder)

    def conclude(self, folder: Path) -> None:
        """What follows the manifest; does no harm a second time, for a run stopped within it."""
        if self.after_save is not None:
            self.after_save(folder)
        # The run is over: what it would have been resumed from only takes space.
        shutil.rmtree(folder / CHECKPOINT, ignore_errors=True)

    def _tiles(self) -> list[dict[str, Any]]:
        if self.samples is None:
            return []
        s = self.samples
        return encode_tiles(s.images, self.input, s.targets, s.confidence)

    def _title(self) -> str:
        method, protocol = self.manifest["method"], self.manifest["protocol"]
        return (
            f"What the papers diagnose, in {method['name']} at {protocol['bits']}, "
            f"{self.manifest['timings']['iterations']} iterations, seed {protocol['seed']}"
        )


def require_no_result(folder: Path) -> None:
    """Refuse a folder that holds a result.

    Raises:
        ResultError: it does.
    """
    if (folder / MANIFEST).exists():
        raise ResultError(
            f"{folder} already holds a result",
            where="--out",
            remedy="give another folder, or delete this one",
        )


def claim_folder(folder: Path) -> None:
    """Make a folder for a result.

    Raises:
        ResultError: it already holds one, or cannot be made.
    """
    require_no_result(folder)
    make_folder(folder)


def remove_result(folder: Path, *, made_from: str) -> None:
    """Delete a result that a given teacher left in a folder, if there is one.

    Args:
        folder: of the result.
        made_from: sha256 of the teacher's weights; results of others stay.
    """
    if not (folder / MANIFEST).is_file():
        return
    if read_origin(read_manifest(folder), folder).weights_sha256 == made_from:
        for name in (
            MANIFEST,
            STUDENT,
            SAMPLES,
            ANALYSIS,
            DIAGNOSTICS,
            DIAGNOSTICS_PICTURE,
            REPORT,
        ):
            (folder / name).unlink(missing_ok=True)
        for name in (CHECKPOINT, LOG):
            shutil.rmtree(folder / name, ignore_errors=True)


def open_result(folder: str | Path, *, network: nn.Module | None = None) -> Result:
    """The result in a folder.

    Args:
        folder: the ``out`` of a run.
        network: the float architecture, for results of a module given in memory; its weights do
            not matter, and it stays as it is. Other results rebuild it from the name on record; a
            network from a file only if the file is, byte for byte, the one of that time.

    Raises:
        ResultError: the folder holds no result, or a damaged one.
        NetworkError: the architecture cannot be built, or is another.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    spec, scheme = read_input(manifest, folder), read_scheme(manifest, folder)
    tensors, _ = _read_student(folder, manifest)
    if network is None:
        network = _rebuild(read_origin(manifest, folder), spec, folder)
    names = manifest["prepared"]
    # Surveys follow versions of tensors, which those of inference mode do not have.
    with torch.inference_mode(False):
        student = _converted(network, scheme, spec, folder, names).requires_grad_(False)
        decode(student, tensors, str(folder / STUDENT))
    return Result(student, manifest)


def load(folder: str | Path, *, network: nn.Module | None = None) -> Student:
    """The quantized module in a result folder, with the outputs it had when it was saved.

    It ends as the network did, be it in a softmax or a sigmoid. Args and errors as
    :func:`open_result`.
    """
    return as_given(open_result(folder, network=network).model)


def reopen_teacher(manifest: dict[str, Any], weights: Path | None) -> nn.Module | None:
    """The teacher that a result came from, or ``None`` where its weights are not at hand.

    Args:
        manifest: of the result.
        weights: the file, where it is not the one on record. Where there is none on record, the
            zoo's pretrained weights are fetched again, and a factory gives its own.

    Raises:
        ResultError: the manifest is damaged.
        NetworkError: the architecture cannot be built.
        WeightsError: ``weights`` cannot be read, or are not those of the teacher.
    """
    origin = read_origin(manifest, Path(), "teacher")
    spec = read_input(manifest, Path())
    module = _with_weights(origin, spec, weights)
    if module is None or state_sha256(module) == origin.weights_sha256:
        return module
    if weights is None:
        return None
    raise WeightsError(
        "these are not the weights that the result was made from",
        where=str(weights),
        remedy="give --weights FILE with the teacher's own",
    )


def _with_weights(origin: Origin, spec: InputSpec, weights: Path | None) -> nn.Module | None:
    """The teacher with ``weights``, or else with those on record if they can be had."""
    if not _names_origin(origin.name):
        return None
    path = weights or (Path(origin.weights) if origin.weights else None)
    if path is None:
        return _with_own_weights(origin, spec)
    module = build_module(origin.name, spec, origin.source_sha256)
    try:
        load_weights(module, path)
    except WeightsError:
        if weights is not None:
            raise
        return None  # the file of that time is gone, or another now
    return module


def _with_own_weights(origin: Origin, spec: InputSpec) -> nn.Module | None:
    try:
        return build_module(origin.name, spec, origin.source_sha256, pretrained=True)
    except NetworkError:  # the zoo cannot be reached
        return None


def _read_student(
    folder: Path, manifest: dict[str, Any]
) -> tuple[dict[str, Tensor], dict[str, str]]:
    path = folder / STUDENT
    tensors = read_tensors(path)
    if sha256_file(path) != read_checksum(manifest, STUDENT, folder):
        raise ResultError(
            f"{STUDENT} is not the file that the manifest describes: its checksum differs",
            where=str(path),
            remedy="quantize again or restore a copy",
        )
    return tensors


def _names_origin(name: str) -> bool:
    """Whether a network can be built by its name; one given in memory has only its class's."""
    return ":" in name or names_onnx_file(name)


def _rebuild(origin: Origin, spec: InputSpec, folder: Path) -> nn.Module:
    if not _names_origin(origin.name):
        raise NetworkError(
            f"the result was made from a {origin.name} given in memory",
            where=str(folder),
            remedy="pass that architecture: dreamquant.load(folder, network=module)",
        )
    return build_module(origin.name, spec, origin.source_sha256)


def _converted(
    network: nn.Module, scheme: Scheme | None, spec: InputSpec, folder: Path, prepared: list[str]
) -> Student:
    try:
        own, _ = ready_copy(network, spec.shape)
        if scheme is None:
            return Student(own).eval()
        example = torch.zeros(2, *spec.shape)
        return convert(restructured(own, prepared, example), scheme, example)
    except Exception as error:  # the network's own code may raise anything
        reason = error.what if isinstance(error, DreamQuantError) else one_line(error)
        raise NetworkError(
            f"{type(network).__name__} is not the architecture that was quantized: {reason}",
            where=str(folder),
            remedy="give the one the result was made from, in the same version",
        ) from error
