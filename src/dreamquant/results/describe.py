"""Sections of the manifest: network, method, protocol and machine as plain JSON values."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any

import torch

from dreamquant import machine
from dreamquant.methods.method import Method
from dreamquant.networks.load import Network
from dreamquant.quantization.scheme import Scheme
from dreamquant.recovery.norms import ReestimateNorms
from dreamquant.terms.contract import Term, Weighted, weighted

_NORMS = {
    "kept": "the teacher's statistics",
    "re-estimated": "the teacher's statistics, moved and stretched as rounding moved and stretched "
    "their channels on synthetic images",
}
_VERSIONED = ("dreamquant", "torch", "numpy", "safetensors", "accelerate")


def describe_network(network: Network) -> dict[str, Any]:
    """The teacher and its input; files with absolute paths."""
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
    """The method with its parts and numbers in this run.

    Args:
        method: method with the preset's numbers.
        preset: name of the preset.
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
    """A part of a method as plain values: its name, its numbers and its parts."""
    if isinstance(part, (Term, Weighted)):
        (term,) = weighted([part])
        return {"weight": term.weight, **_numbers(term.term)}
    if is_dataclass(part) and not isinstance(part, type):
        return _numbers(part)
    if isinstance(part, (list, tuple)):
        return [describe_part(each) for each in part]
    return part


def _numbers(part: Any) -> dict[str, Any]:
    # Fields that are not shown, such as open files, are not numbers.
    values = {
        each.name: describe_part(getattr(part, each.name)) for each in fields(part) if each.repr
    }
    return {"part": type(part).__name__, **values}


def describe_protocol(
    network: Network,
    scheme: Scheme,
    method: Method,
    *,
    seed: int,
    precision: str,
    accumulate: int,
    images: str = "",
    dynamic: tuple[int, int] = (0, 0),
) -> dict[str, Any]:
    """All that must be equal for two accuracies to be compared.

    Args:
        network: the teacher.
        scheme: scheme of the student.
        method: method with the preset's numbers.
        seed: seed of the run.
        precision: precision of training.
        accumulate: number of micro-batches.
        images: images that replace the method's images; empty if none do.
        dynamic: number of activation scales that are computed for each image, and of the values
            that they are computed from.
    """
    ends = scheme.first_last_bits
    weight_bits = {scheme.bits.weight, ends, *(bits.weight for _, bits in scheme.overrides)}
    symmetric = ", symmetric at 8 bits" if 8 in weight_bits else ""
    step = "learned step size" if scheme.ranges == "learned" else ""
    # The last part that sets them decides.
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
        "activations": _activations(scheme, dynamic, ranges),
        "gradient": "clipped" if scheme.clips_gradient else "straight-through",
        **_stored(scheme),
        "batch_norm": f"float, {_norms(method)}",
        **({"images": images} if images else {}),
        "iteration": "last",
        "teacher_sha256": network.weights_sha256,
        "seed": seed,
        "training_precision": precision,
        "accumulate": accumulate,
    }


def _activations(scheme: Scheme, dynamic: tuple[int, int], ranges: str) -> str:
    if scheme.granularity == "tensor":
        return f"affine, per tensor, static, {ranges}"
    scales, values = dynamic
    return (
        f"affine, per image and channel, dynamic: {scales:,} scales found anew for each image from "
        f"{values:,} values"
    )


def _norms(method: Method) -> str:
    reestimated = any(
        isinstance(part, ReestimateNorms) and part.batches for part in method.recovery
    )
    return _NORMS["re-estimated" if reestimated else "kept"]


def describe_distillation(
    teacher: Network, *, seed: int, precision: str, accumulate: int
) -> dict[str, Any]:
    """The protocol of a student in full precision."""
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
