"""The manifest: everything needed to understand, repeat and load a result, as plain JSON."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch

from dreamquant import machine
from dreamquant.errors import DreamQuantError, ResultError
from dreamquant.methods.method import Method
from dreamquant.networks.load import Network
from dreamquant.networks.spec import InputSpec
from dreamquant.quantization.scheme import Bits, Scheme
from dreamquant.recovery.norms import ReestimateNorms
from dreamquant.results.files import read_json
from dreamquant.results.upgrade import SCHEMA, upgraded
from dreamquant.terms.contract import Term, Weighted, weighted

MANIFEST = "manifest.json"
# What a record of other fields, types or values ends in.
_DAMAGE = (KeyError, TypeError, ValueError, AttributeError, DreamQuantError)
_NORMS = {
    "kept": "the teacher's statistics",
    "re-estimated": "the teacher's statistics, moved and stretched as rounding moved and stretched "
    "their channels on synthetic images",
}
_VERSIONED = ("dreamquant", "torch", "numpy", "safetensors", "accelerate")


def describe_network(network: Network) -> dict[str, Any]:
    """Which teacher, with what input; files by their whole path, to be found from any folder."""
    file, _, factory = network.name.rpartition(":")
    in_file, name = network.source_sha256 is not None, network.name
    if in_file:
        name = f"{Path(file).resolve()}:{factory}" if file else str(Path(name).resolve())
    return {
        "name": name,
        "weights": network.weights and str(Path(network.weights).resolve()),
        "weights_sha256": network.weights_sha256,
        "source_sha256": network.source_sha256,
        "input": asdict(network.input),
        "input_source": network.input_source,
        "notes": list(network.notes),
    }


def describe_method(method: Method, preset: str) -> dict[str, Any]:
    """Which method, with its parts and numbers as they were run.

    Args:
        method: resolved.
        preset: whose numbers it has.
    """
    return {
        "name": method.name,
        "iterations": method.iterations,
        "paper": asdict(method.paper),
        "add_ons": [{"name": part.name, "paper": asdict(part.paper)} for part in method.add_ons],
        "preset": preset,
        "images": describe_part(method.images),
        "recovery": [describe_part(part) for part in method.recovery],
        "prepare": [describe_part(part) for part in method.prepare],
        "scheme": dict(method.scheme),
    }


def describe_part(part: Any) -> Any:
    """A part of a method as plain values: its name, its numbers, and the parts it is made of."""
    if isinstance(part, (Term, Weighted)):
        (term,) = weighted([part])
        return {"weight": term.weight, **_numbers(term.term)}
    if is_dataclass(part) and not isinstance(part, type):
        return _numbers(part)
    if isinstance(part, (list, tuple)):
        return [describe_part(each) for each in part]
    return part


def _numbers(part: Any) -> dict[str, Any]:
    values = {each.name: describe_part(getattr(part, each.name)) for each in fields(part)}
    return {"part": type(part).__name__, **values}


def describe_protocol(
    network: Network,
    scheme: Scheme,
    method: Method,
    *,
    seed: int,
    precision: str,
    accumulate: int,
) -> dict[str, Any]:
    """All that must be equal for two accuracies to be compared."""
    ends = scheme.first_last_bits
    weight_bits = {scheme.bits.weight, ends, *(bits.weight for _, bits in scheme.overrides)}
    symmetric = ", symmetric at 8 bits" if 8 in weight_bits else ""
    step = "learned step size" if scheme.ranges == "learned" else ""
    # The last part that sets them has the word.
    learned = [step] if step else []
    weights_by = [part.weights_by for part in method.recovery if part.weights_by]
    ranges_by = [part.ranges_by for part in method.recovery if part.ranges_by]
    rounded = ["min-max", *weights_by, *learned][-1]
    ranges = ["moving min-max", *ranges_by, *learned][-1]
    return {
        "bits": str(scheme.bits),
        "first_last_bits": str(scheme.bits) if ends is None else ends,
        "overrides": {pattern: str(bits) for pattern, bits in scheme.overrides},
        "placement": scheme.placement,
        "weights": f"affine, per output channel, {rounded}{symmetric}{_narrowed(scheme)}",
        "activations": f"affine, per tensor, static, {ranges}",
        "gradient": "clipped" if scheme.clips_gradient else "straight-through",
        **_stored(scheme),
        "batch_norm": f"float, {_norms(method)}",
        "iteration": "last",
        "teacher_sha256": network.weights_sha256,
        "seed": seed,
        "training_precision": precision,
        "accumulate": accumulate,
    }


def _norms(method: Method) -> str:
    reestimated = any(
        isinstance(part, ReestimateNorms) and part.batches for part in method.recovery
    )
    return _NORMS["re-estimated" if reestimated else "kept"]


def describe_distillation(
    teacher: Network, *, seed: int, precision: str, accumulate: int
) -> dict[str, Any]:
    """Likewise, for a student in full precision."""
    return {
        "bits": "float32",
        "batch_norm": "float, the synthetic images' statistics",
        "iteration": "last",
        "teacher_sha256": teacher.weights_sha256,
        "seed": seed,
        "training_precision": precision,
        "accumulate": accumulate,
    }


def _narrowed(scheme: Scheme) -> str:
    grids = {7: "7-bit weights symmetric", 8: "8-bit weights in 7-bit range"}
    narrowed = " and ".join(grids[bits] for bits in scheme.narrowed_bits())
    return f", {narrowed}, safe without VNNI" if narrowed else ""


def _stored(scheme: Scheme) -> dict[str, Any]:
    if scheme.joins is None:
        return {}
    return {
        "joins": scheme.joins,
        "image": scheme.bits_of("", first=True, last=False).activation,
        "biases": "whole, in units of input scale times weight scale",
    }


class Storage(NamedTuple):
    """Bytes of a quantized network's tensors.

    Attributes:
        full: of the teacher, 4 a number.
        weights: packed.
        scales: with the zero-points.
        left_in_float: all the rest.
    """

    full: int
    weights: int
    scales: int
    left_in_float: int

    @property
    def small(self) -> int:
        """Of the student."""
        return self.weights + self.scales + self.left_in_float


def storage_of(coverage: Mapping[str, Any]) -> Storage:
    """What the coverage on record takes to store."""
    left = coverage["float_bytes"]
    full = 4 * sum(layer["weights"] for layer in coverage["layers"]) + left
    return Storage(full, coverage["weight_bytes"], coverage["scale_bytes"], left)


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Versions and hardware."""
    return {
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in _VERSIONED},
        },
        "hardware": {
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
            "cpu": machine.processor(),
            "instruction_sets": list(machine.instruction_sets()),
            "cpus": os.cpu_count(),
            "threads": torch.get_num_threads(),
        },
    }


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a result folder.

    Raises:
        ResultError: there is none, it is damaged, or of a later schema.
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
    """The input on record.

    Raises:
        ResultError: the record is incomplete, or its values make none.
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
    """The scheme on record; ``None`` of a student in full precision.

    Raises:
        ResultError: the record is incomplete, or its values make none.
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
        name: see :attr:`dreamquant.networks.load.Network.name`, as for the next ones.
        weights: the file they were read from.
        weights_sha256: of the state.
        source_sha256: of the factory's file.
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
    """The network on record, or the teacher where that is another.

    Raises:
        ResultError: the record is incomplete.
    """
    try:
        fields = manifest.get(section, manifest["network"])
        return Origin(**{field: fields[field] for field in Origin.__dataclass_fields__})
    except _DAMAGE as error:
        raise _damaged(section, error, where) from error


def names_file(manifest: Mapping[str, Any], file: str, where: Path) -> bool:
    """Whether a file in the result folder is on record.

    Raises:
        ResultError: the record is damaged.
    """
    try:
        return file in dict(manifest["files"])  # a list, which holds no checksums, is refused
    except _DAMAGE as error:
        raise _damaged("files", error, where) from error


def read_checksum(manifest: Mapping[str, Any], file: str, where: Path) -> str:
    """The SHA-256 on record of a file in the result folder.

    Raises:
        ResultError: there is none.
    """
    try:
        return str(manifest["files"][file]["sha256"])
    except _DAMAGE as error:
        raise _damaged("files", error, where) from error


def read_summary(manifest: Mapping[str, Any], where: Path) -> dict[str, Any]:
    """The figures on record that a run is known by.

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
