"""Exports a student to a ``torch.export`` program."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

import torch

from dreamquant.export import metadata
from dreamquant.export.compare import NotTheStudentError
from dreamquant.export.noise import noise
from dreamquant.export.tracing import tracing
from dreamquant.networks.endings import as_given, ending_of
from dreamquant.networks.outputs import as_one
from dreamquant.networks.spec import InputSpec
from dreamquant.quantization.student import Student


def program(student: Student, manifest: Mapping[str, Any], spec: InputSpec) -> bytes:
    """The bytes of a ``.pt2`` file with the same outputs as the student.

    Quantizers compute in float, like in the student. The batch size is free.

    Raises:
        ExportError: the network cannot be traced, or the outputs of the saved program differ.
    """
    images, given = noise(spec), as_given(student)
    buffer = io.BytesIO()
    with tracing(student.network, "torch.export"), torch.no_grad():
        exported = torch.export.export(
            given, (images[:2],), dynamic_shapes=({0: torch.export.Dim("batch")},)
        )
    properties = metadata.describe(manifest, spec, "pt2", None, ending_of(student))
    torch.export.save(exported, buffer, extra_files={"dreamquant.json": json.dumps(properties)})
    buffer.seek(0)
    again = torch.export.load(buffer).module()
    with torch.no_grad():
        if not torch.equal(as_one(again(images)), as_one(given(images))):
            raise NotTheStudentError("its outputs differ")
    return buffer.getvalue()
