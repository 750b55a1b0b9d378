"""Writes and reads the metadata of an exported file."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from dreamquant.errors import DreamQuantError, ExportError
from dreamquant.networks.choices import Form
from dreamquant.networks.spec import InputSpec

Layout = Literal["nhwc", "nchw"]

IMAGES = "dreamquant/images"  # temporary name of the input
RATIO, POWERS = ".ratio", ".powers_of_two"  # ends of a quantizer's first and last node's names
_PREFIX = "dreamquant."


@dataclass(frozen=True)
class Description:
    """The metadata of an exported file.

    Attributes:
        target: ``int8box`` or ``int4``.
        input: input and outputs of the network, with class names.
        layout: layout of the uint8 images that the file takes; ``None`` if it takes normalised
            images in the form ``input.form``.
        ending: names of the functions that convert its output to logits, see
            :func:`dreamquant.networks.endings.ending_of`; ``None`` in files of older versions.
    """

    target: str
    input: InputSpec
    layout: Layout | None
    ending: tuple[str, ...] | None


def own_layout(form: Form) -> Layout | None:
    """The layout of uint8 images for a form of input; ``None`` for normalised numbers."""
    layouts: dict[Form, Layout] = {"uint8-nchw": "nchw", "uint8-nhwc": "nhwc"}
    return layouts.get(form)


def describe(
    manifest: Mapping[str, Any],
    spec: InputSpec,
    target: str,
    layout: Layout | None,
    ending: tuple[str, ...],
) -> dict[str, str]:
    """Make the ``metadata_props`` of a file; every value is JSON."""
    bits = {
        layer["name"]: {"weight": layer["weight_bits"], "input": layer["input_bits"]}
        for layer in manifest["coverage"]["layers"]
    }
    values = {
        "version": importlib.metadata.version("dreamquant"),
        "target": target,
        "preprocessing": layout,
        "ending": ending,
        "input": asdict(spec),
        "class_names": spec.class_names,
        "bits": bits,
        "method": manifest["method"]["name"],
        "seed": manifest["protocol"]["seed"],
        "protocol": manifest["protocol"],
    }
    return {f"{_PREFIX}{name}": json.dumps(value) for name, value in values.items()}


def encoded(name: str, value: object) -> tuple[str, str]:
    """Make one entry of ``metadata_props``."""
    return f"{_PREFIX}{name}", json.dumps(value)


def read(properties: Mapping[str, str], where: str) -> Description:
    """Read the metadata of a file.

    Raises:
        ExportError: the file was not exported by DreamQuant, or its metadata are damaged.
    """
    if f"{_PREFIX}input" not in properties:
        raise ExportError(
            "the file does not describe its input",
            where=where,
            remedy="give a file that `dreamquant export` wrote; `dreamquant evaluate` "
            "takes others, in float, with --mean and --std",
        )
    try:
        fields: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in json.loads(properties[f"{_PREFIX}input"]).items()
        }
        target, layout = (
            json.loads(properties[f"{_PREFIX}{name}"]) for name in ("target", "preprocessing")
        )
        ending = json.loads(properties.get(f"{_PREFIX}ending", "null"))
        return Description(
            target, InputSpec(**fields), layout, None if ending is None else tuple(ending)
        )
    except (KeyError, TypeError, ValueError, AttributeError, DreamQuantError) as error:
        raise ExportError(
            "the file's metadata are damaged", where=where, remedy="export it again"
        ) from error
