"""The manifest: all that is needed to understand, repeat and load a result, as plain JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dreamquant.errors import DreamQuantError, ResultError
from dreamquant.networks.onnx_file import names_onnx_file
from dreamquant.networks.spec import InputSpec
from dreamquant.quantization.scheme import Bits, Scheme
from dreamquant.results.files import read_json
from dreamquant.results.upgrade import SCHEMA, upgraded

MANIFEST = "manifest.json"
# The exceptions for a record with wrong fields, types or values.
_DAMAGE = (KeyError, TypeError, ValueError, AttributeError, DreamQuantError)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a result folder.

    Raises:
        ResultError: the manifest is missing, damaged or of a later schema.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise ResultError(
            f"{folder} is not a result of dreamquant: it has no {MANIFEST}",
            where=str(folder),
            remedy="give the --out folder of a finished run",
        )
    manifest = read_json(path)
    if manifest.get("schema") not in range(1, SCHEMA + 1):
        raise ResultError(
            f"the manifest has schema {manifest.get('schema')!r}, this version reads {SCHEMA}",
            where=str(path),
            remedy="use the version of dreamquant that wrote it",
        )
    try:
        return upgraded(manifest)
    except _DAMAGE as error:
        raise _damaged("method, scheme or protocol", error, folder) from error


def read_input(manifest: Mapping[str, Any], where: Path) -> InputSpec:
    """Read the input on record.

    Raises:
        ResultError: the record is incomplete, or its values are invalid.
    """
    try:
        fields: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in manifest["network"]["input"].items()
        }
        return InputSpec(**fields)
    except _DAMAGE as error:
        raise _damaged("network.input", error, where) from error


def read_scheme(manifest: Mapping[str, Any], where: Path) -> Scheme | None:
    """Read the scheme on record; ``None`` for a student in full precision.

    Raises:
        ResultError: the record is incomplete, or its values are invalid.
    """
    try:
        if manifest["scheme"] is None:
            return None
        fields = dict(manifest["scheme"])
        fields["bits"] = Bits(**fields["bits"])
        fields["overrides"] = tuple((p, Bits(**bits)) for p, bits in fields["overrides"])
        return Scheme(**fields)
    except _DAMAGE as error:
        raise _damaged("scheme", error, where) from error


@dataclass(frozen=True)
class Origin:
    """A network on record.

    Attributes:
        name: see :attr:`dreamquant.networks.load.Network.name`.
        weights: file of the weights.
        weights_sha256: hash of the state.
        source_sha256: hash of the factory's file.
    """

    name: str
    weights: str | None
    weights_sha256: str
    source_sha256: str | None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise TypeError(f"the name is {self.name!r}")


def read_origin(
    manifest: Mapping[str, Any], where: Path, section: Literal["network", "teacher"] = "network"
) -> Origin:
    """Read the network on record, or the teacher if it is a different network.

    Raises:
        ResultError: the record is incomplete.
    """
    try:
        fields = manifest.get(section, manifest["network"])
        return Origin(**{field: fields[field] for field in Origin.__dataclass_fields__})
    except _DAMAGE as error:
        raise _damaged(section, error, where) from error


def names_network(name: str) -> bool:
    """Whether a network can be built from the name on record; not if it was given in memory.

    Args:
        name: name of a factory or an ONNX file; for a network given in memory, its class.
    """
    return ":" in name or names_onnx_file(name)


def names_file(manifest: Mapping[str, Any], file: str, where: Path) -> bool:
    """Whether a file in the result folder is on record.

    Raises:
        ResultError: the record is damaged.
    """
    try:
        return file in dict(manifest["files"])  # a list, which has no checksums, is refused
    except _DAMAGE as error:
        raise _damaged("files", error, where) from error


def read_checksum(manifest: Mapping[str, Any], file: str, where: Path) -> str:
    """The SHA-256 on record of a file in the result folder.

    Raises:
        ResultError: the section is missing.
    """
    try:
        return str(manifest["files"][file]["sha256"])
    except _DAMAGE as error:
        raise _damaged("files", error, where) from error


def read_summary(manifest: Mapping[str, Any], where: Path) -> dict[str, Any]:
    """Read the main figures of a run.

    Raises:
        ResultError: the record is incomplete.
    """
    try:
        return {
            **{
                name: {"top1": None if measured is None else measured["top1"]}
                for name, measured in manifest["accuracy"].items()
            },
            "agreement": manifest["agreement"]["percent"],
            "seconds": manifest["timings"]["seconds"],
            "iterations": manifest["timings"]["iterations"],
        }
    except _DAMAGE as error:
        raise _damaged("accuracy, agreement or timings", error, where) from error


def _damaged(section: str, error: Exception, where: Path) -> ResultError:
    return ResultError(
        f"the manifest's section {section!r} is damaged: {_reason(error)}",
        where=str(where / MANIFEST),
        remedy="quantize again or restore a copy",
    )


def _reason(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"{error} is missing"
    return error.what if isinstance(error, DreamQuantError) else str(error)
