"""What an exported file says of itself, and how it is read again."""

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

IMAGES = "dreamquant/images"  # the input, until it gets its own name
_PREFIX = "dreamquant."


@dataclass(frozen=True)
class Description:
    """What an exported file says of itself.

    Attributes:
        target: ``int8box`` or ``int4``.
        input: what the network expects, its class names with it.
        layout: of the uint8 images that the file takes; ``None`` where it takes normalised ones, as
            ``input.form`` says.
        ending: what makes logits of its output, see :func:`dreamquant.networks.endings.ending_of`;
            ``None`` in files of versions that did not say.
    """

    target: str
    input: InputSpec
    layout: Layout | None
    ending: tuple[str, ...] | None


def own_layout(form: Form) -> Layout | None:
    """Of the uint8 images that a file takes by its form; ``None`` where it takes numbers."""
    layouts: dict[Form, Layout] = {"uint8-nchw": "nchw", "uint8-nhwc": "nhwc"}
    return layouts.get(form)


def describe(
    manifest: Mapping[str, Any],
    spec: InputSpec,
    target: str,
    layout: Layout | None,
    ending: tuple[str, ...],
) -> dict[str, str]:
    """The ``metadata_props`` of a file; every value is JSON."""
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
    """One more entry for ``metadata_props``."""
    return f"{_PREFIX}{name}", json.dumps(value)


def read(properties: Mapping[str, str], where: str) -> Description:
    """What a file says of itself.

    Raises:
        ExportError: it was not exported by DreamQuant, or its metadata are damaged.
    """
    if f"{_PREFIX}input" not in properties:
        raise ExportError(
            "nothing tells the input of this network",
            where=where,
            remedy="give a file that `dreamquant export` wrote; `dreamquant evaluate` "
            "takes others with --mean and --std",
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
