"""A student as a ``torch.export`` program."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

import torch

from dreamquant.errors import ExportError
from dreamquant.export import metadata
from dreamquant.export.verify import noise
from dreamquant.networks.spec import InputSpec
from dreamquant.networks.zoo import one_line
from dreamquant.quantization.layers import Student


def program(student: Student, manifest: Mapping[str, Any], spec: InputSpec) -> bytes:
    """The bytes of a ``.pt2`` file, whose logits are the student's own.

    Its quantizers compute in float, as the student does; the batch is free.

    Raises:
        ExportError: the network cannot be traced, or the saved program computes something else.
    """
    images = noise(spec.shape)
    buffer = io.BytesIO()
    try:
        with torch.no_grad():
            exported = torch.export.export(
                student, (images[:2],), dynamic_shapes=({0: torch.export.Dim("batch")},)
            )
    except Exception as error:  # the network's own code may fail
        raise ExportError(
            f"the network cannot be exported: {one_line(error)}",
            where=type(student.network).__name__,
            remedy="write that part of its forward pass so that `torch.export` can trace it, for "
            "any number of images",
        ) from error
    properties = metadata.describe(manifest, spec, "pt2", None)
    torch.export.save(exported, buffer, extra_files={"dreamquant.json": json.dumps(properties)})
    buffer.seek(0)
    again = torch.export.load(buffer).module()
    with torch.no_grad():
        if not torch.equal(again(images), student(images)):
            raise ExportError(
                "the exported program is not the student: its logits differ",
                where="verification",
                remedy="nothing was written; please report this with the network",
            )
    return buffer.getvalue()
