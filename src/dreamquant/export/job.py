"""Exports the student of a result: files are verified, then written, then recorded."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch

from dreamquant.errors import ExportError, ResultError
from dreamquant.export.metadata import Layout
from dreamquant.export.parts import is_there, require_export
from dreamquant.networks.spec import InputSpec
from dreamquant.quantization.student import Student
from dreamquant.results.describe import describe_machine
from dreamquant.results.files import make_folder, write_bytes, write_json
from dreamquant.results.folder import STUDENT
from dreamquant.results.manifest import MANIFEST, read_manifest
from dreamquant.results.reopen import open_result
from dreamquant.results.result import Result

if TYPE_CHECKING:
    from dreamquant.export.graph import Drawing
    from dreamquant.export.verify import Verification

FileTarget = Literal["int8box", "int4", "pt2"]
TARGETS: tuple[FileTarget, ...] = get_args(FileTarget)
DEFAULT_TARGETS: tuple[FileTarget, ...] = ("int8box", "int4")


@dataclass(frozen=True)
class ExportedFile:
    """A file that was exported.

    Attributes:
        path: path of the file.
        target: ``int8box``, ``int4`` or ``pt2``.
        bytes: size of the file.
        verification: the comparison with the student; ``None`` for programs, whose logits are
            equal.
        in_float: computations that stay in float, each with its reason.
    """

    path: Path
    target: FileTarget
    bytes: int
    verification: Verification | None
    in_float: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """The attributes by name, as plain JSON values."""
        verification = None if self.verification is None else asdict(self.verification)
        return {
            "path": str(self.path),
            "target": self.target,
            "bytes": self.bytes,
            "verification": verification,
            "in_float": list(self.in_float),
        }


def file_name(target: FileTarget) -> str:
    """The name of the file of a target."""
    return "model.pt2" if target == "pt2" else f"model.{target}.onnx"


def export_result(
    result: str | Path | Result,
    targets: Sequence[FileTarget] = DEFAULT_TARGETS,
    *,
    to: str | Path | None = None,
    preprocessing: Layout | None = None,
    two_bit: bool = False,
) -> list[ExportedFile]:
    """Export the quantized network of a result folder to files for other runtimes.

    Args:
        result: a result folder, or a result in memory; then ``to`` is required.
        targets: ``int8box`` for speed; ``int4`` for small size; ``pt2`` for a ``torch.export``
            program.
        to: folder for the files; by default the result folder.
        preprocessing: ONNX files take uint8 images of this layout, ``nhwc`` or ``nchw``.
        two_bit: store 2-bit weights of the ``int4`` file as INT2, which few runtimes support.

    Returns:
        The files, in the order of ``targets``. The manifest beside them has their checksums.

    Raises:
        ExportError: the network cannot be exported, a file fails its verification, or an optional
            package is missing. Earlier files stay. If a file computes something else than the
            student, ``failed.TARGET.json`` is written for a report, without weights.
        ResultError: the folder contains no result, or a file cannot be written.
    """
    unknown = [target for target in targets if target not in TARGETS]
    if unknown:
        raise ExportError(
            f"{unknown[0]!r} is not a target", where="--target", remedy=f"give {', '.join(TARGETS)}"
        )
    require_export()
    opened = result if isinstance(result, Result) else open_result(result)
    folder = _folder(to, None if isinstance(result, Result) else Path(result), opened)
    # Imported here, because it imports packages that may be missing.
    from dreamquant.export.graph import Drawing

    drawing = Drawing(opened.model, opened.input)
    return [
        _write(folder, target, opened, drawing, preprocessing=preprocessing, two_bit=two_bit)
        for target in targets
    ]


def rehearse_export(student: Student, spec: InputSpec) -> None:
    """Export a student as ``int8box`` and verify it, without writing a file.

    Whether export works does not depend on training. So a long run can check before it begins
    whether its result can be exported.

    Args:
        student: a student with known ranges, after ``fix``.
        spec: its input.

    Raises:
        ExportError: see :func:`export_result`.
    """
    from dreamquant.export.onnx_file import onnx_file

    require_export()
    unknown = {"coverage": {"layers": []}, "method": {"name": None}, "protocol": {"seed": None}}
    onnx_file(student, unknown, spec, "int8box", layout=None, two_bit=False)


def _folder(to: str | Path | None, own: Path | None, result: Result) -> Path:
    """The folder for the files; its manifest must be of this result, if there is one."""
    folder = Path(to) if to is not None else own
    if folder is None:
        raise ExportError(
            "no folder is given for the files", where="export_result(to=…)", remedy="give to=FOLDER"
        )
    if own is not None and folder.resolve() == own.resolve():
        return folder
    if (folder / MANIFEST).exists() and _identity(read_manifest(folder)) != _identity(
        result.manifest
    ):
        raise ResultError(
            f"{folder} contains another result",
            where="--to",
            remedy="give another folder",
        )
    make_folder(folder)
    return folder


def _identity(manifest: dict[str, Any]) -> str:
    """All that it says, of files the student alone: others differ from folder to folder."""
    student = manifest["files"].get(STUDENT)
    return json.dumps(manifest | {"files": student}, sort_keys=True)


def _write(
    folder: Path,
    target: FileTarget,
    result: Result,
    drawing: Drawing,
    *,
    preprocessing: Layout | None,
    two_bit: bool,
) -> ExportedFile:
    # Imported here, because they import packages that may be missing.
    from dreamquant.export.compare import NotTheStudentError

    try:
        return _verified(
            folder, target, result, drawing, preprocessing=preprocessing, two_bit=two_bit
        )
    except NotTheStudentError as error:
        path = folder / f"failed.{target}.json"
        report = {
            "reason": error.reason,
            "target": target,
            "layer": error.evidence,
            "runtimes": {
                name: importlib.metadata.version(name)
                for name in ("onnxruntime", "openvino")
                if is_there(name)
            },
            **describe_machine(torch.device("cpu")),
        }
        write_json(path, report)
        error.remedy = (
            f"the file was not written; please report this with {path}, which has no weights"
        )
        raise


def _verified(
    folder: Path,
    target: FileTarget,
    result: Result,
    drawing: Drawing,
    *,
    preprocessing: Layout | None,
    two_bit: bool,
) -> ExportedFile:
    from dreamquant.export.onnx_file import onnx_file
    from dreamquant.export.program import program

    path, model = folder / file_name(target), result.model
    if target == "pt2":
        data = program(model, result.manifest, result.input)
        done = ExportedFile(path, target, len(data), None, ())
    else:
        file = onnx_file(
            model,
            result.manifest,
            result.input,
            target,
            layout=preprocessing,
            two_bit=two_bit,
            drawing=drawing,
        )
        data = file.data
        done = ExportedFile(path, target, len(data), file.verification, file.in_float)
    write_bytes(path, data)
    _put_on_record(folder, done, data, result.manifest)
    return done


def _put_on_record(folder: Path, file: ExportedFile, data: bytes, manifest: dict[str, Any]) -> None:
    """Record the file in the folder's manifest; another folder gets a copy of the manifest."""
    here = read_manifest(folder) if (folder / MANIFEST).exists() else manifest
    described = file.as_json()
    del described["path"]
    record = {"sha256": hashlib.sha256(data).hexdigest(), **described}
    files = here["files"] | {file.path.name: record}
    write_json(folder / MANIFEST, here | {"files": files})
