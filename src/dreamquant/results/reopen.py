"""Opens a result from its folder, and the teacher that it was made from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dreamquant.errors import DreamQuantError, NetworkError, ResultError, WeightsError
from dreamquant.networks.checkpoints import load_weights
from dreamquant.networks.endings import as_given
from dreamquant.networks.load import build_module, ready_copy
from dreamquant.networks.spec import InputSpec
from dreamquant.networks.weights import state_sha256
from dreamquant.networks.zoo import one_line
from dreamquant.quantization.convert import convert
from dreamquant.quantization.prepare import restructured
from dreamquant.quantization.scheme import Scheme
from dreamquant.quantization.student import Student
from dreamquant.results.files import (
    read_tensors,
    sha256_file,
)
from dreamquant.results.folder import STUDENT
from dreamquant.results.manifest import (
    Origin,
    names_network,
    read_checksum,
    read_input,
    read_manifest,
    read_origin,
    read_scheme,
)
from dreamquant.results.result import Result
from dreamquant.results.student import decode


def open_result(folder: str | Path, *, network: nn.Module | None = None) -> Result:
    """Open the result in a folder.

    Args:
        folder: the ``out`` folder of a run.
        network: the float architecture, for results of a module given in memory. Its weights do not
            matter, and it is not changed. For other results it is built from the recorded name. If
            that name is a file, the file must not have changed.

    Raises:
        ResultError: the folder contains no result, or a damaged one.
        NetworkError: the architecture cannot be built, or differs.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    spec, scheme = read_input(manifest, folder), read_scheme(manifest, folder)
    tensors, _ = _read_student(folder, manifest)
    if network is None:
        network = _rebuild(read_origin(manifest, folder), spec, folder)
    names = manifest["prepared"]
    # The survey uses version counters of tensors, which do not exist in inference mode.
    with torch.inference_mode(False):
        student = _converted(network, scheme, spec, folder, names).requires_grad_(False)
        decode(student, tensors, str(folder / STUDENT))
    return Result(student, manifest)


def load(folder: str | Path, *, network: nn.Module | None = None) -> Student:
    """The quantized module in a result folder, with the same outputs as when it was saved.

    Its outputs are those of the user's network, also if it ends in a softmax or a sigmoid. Args and
    errors as for :func:`open_result`.
    """
    return as_given(open_result(folder, network=network).model)


def reopen_teacher(manifest: dict[str, Any], weights: Path | None) -> nn.Module | None:
    """The teacher that a result was made from, or ``None`` if its weights are not available.

    Args:
        manifest: manifest of the result.
        weights: file of the weights, if it is not the recorded one. Without a recorded file, the
            zoo's pretrained weights are loaded again, and a factory provides its own.

    Raises:
        ResultError: the manifest is damaged.
        NetworkError: the architecture cannot be built.
        WeightsError: ``weights`` cannot be read, or are not the teacher's weights.
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
        remedy="give --weights FILE with the teacher's weights",
    )


def _with_weights(origin: Origin, spec: InputSpec, weights: Path | None) -> nn.Module | None:
    """The teacher with ``weights``, or with the recorded ones if they are available."""
    if not names_network(origin.name):
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
        return None  # the file has been removed or changed
    return module


def _with_own_weights(origin: Origin, spec: InputSpec) -> nn.Module | None:
    try:
        return build_module(origin.name, spec, origin.source_sha256, pretrained=True)
    except NetworkError:  # the zoo is not reachable
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


def _rebuild(origin: Origin, spec: InputSpec, folder: Path) -> nn.Module:
    if not names_network(origin.name):
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
        own, _ = ready_copy(network, spec)
        if scheme is None:
            return Student(own).eval()
        example = torch.zeros(2, *spec.shape)
        return convert(restructured(own, prepared, example), scheme, example)
    except Exception as error:  # the network's own code may raise any exception
        reason = error.what if isinstance(error, DreamQuantError) else one_line(error)
        raise NetworkError(
            f"{type(network).__name__} is not the architecture that was quantized: {reason}",
            where=str(folder),
            remedy="give the one the result was made from, in the same version",
        ) from error
