"""Exported files in ONNX Runtime and OpenVINO."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dreamquant.errors import ExportError
from dreamquant.export import metadata
from dreamquant.export.metadata import Description
from dreamquant.export.parts import part, require
from dreamquant.networks.endings import logits_of, with_ending
from dreamquant.networks.pixels import denormalise
from dreamquant.networks.spec import InputSpec
from dreamquant.networks.zoo import one_line
from dreamquant.results.files import sha256_file
from dreamquant.results.manifest import MANIFEST, names_file, read_checksum, read_manifest

Array = NDArray[Any]
EXACT = "session.x64quantprecision"
_INTEGER_CONVOLUTIONS = ("QLinearConv", "ConvInteger")
_FLOAT_CONVOLUTIONS = ("Conv", "FusedConv", "ConvTranspose")
_INTEGER_PRODUCTS = ("QLinearMatMul", "MatMulInteger", "MatMulIntegerToFloat", "QGemm")
_FLOAT_PRODUCTS = ("MatMul", "FusedMatMul", "MatMulNBits", "Gemm", "FusedGemm")


class Session(Protocol):
    """A network in some runtime."""

    def run(self, feed: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        """The outputs asked for."""
        ...


class OrtSession:
    """A network in ONNX Runtime on the CPU.

    Args:
        model: the file's bytes.
        threads: of the runtime.
        optimized: where to put the graph that really runs.
        exact: take kernels that no sum saturates in, slower ones where the processor has no VNNI.
    """

    def __init__(
        self, model: bytes, *, threads: int, optimized: Path | None = None, exact: bool = False
    ) -> None:
        ort = part("onnxruntime")
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3  # errors alone: they are raised too
        if optimized is not None:
            options.optimized_model_filepath = str(optimized)
        if exact:
            options.add_session_config_entry(EXACT, "1")
        self._session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def run(self, feed: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        """The outputs asked for."""
        result: list[Array] = self._session.run(list(outputs), dict(feed))
        return result


@cache
def _core(openvino: ModuleType) -> Any:
    """The one core of this process, which lives as long as the process.

    A core's CPU plugin gives the thread that compiles first a stack for signals. Where the core
    dies in another thread, that stack is unmapped but still set: the next Ctrl-C then ends the
    process by a segmentation fault (seen in OpenVINO 2026.4).
    """
    return openvino.Core()


class OpenVinoSession:
    """A network in OpenVINO on the CPU, likewise."""

    def __init__(self, model: bytes, *, threads: int) -> None:
        core = _core(part("openvino"))
        read = core.read_model(model)
        # Else it may compute in bfloat16 where the processor has it.
        options = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
        self._compiled = core.compile_model(read, "CPU", options)

    def run(self, feed: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        """The outputs asked for."""
        found = self._compiled(dict(feed))
        return [np.asarray(found[name]) for name in outputs]


RUNTIMES: dict[str, type[OrtSession] | type[OpenVinoSession]] = {
    "onnxruntime": OrtSession,
    "openvino": OpenVinoSession,
}


class OnnxNetwork(nn.Module):
    """An exported file as a module: the outputs of its network for normalised images (B, ...).

    Those of a classifier are logits, whatever the file ends in; several are a dictionary by name.

    Args:
        session: it runs in.
        description: of the file; one that takes uint8 images gets them back from the normalised.
        runtime: of the session.
        path: of the file.
        model: the file's ``onnx.ModelProto``.
    """

    def __init__(
        self, session: Session, description: Description, runtime: str, path: Path, model: Any
    ) -> None:
        super().__init__()
        self.session, self.description = session, description
        self.runtime, self.path, self.model = runtime, path, model

    def forward(self, images: Tensor) -> Tensor | dict[str, Tensor]:
        """See the class.

        Raises:
            ExportError: the runtime cannot run the file.
        """
        spec = self.description.input
        names, feed = spec.outputs, as_taken(images, spec, self.description.layout)
        with running(self.runtime, self.path):
            given = self.session.run({spec.entry: feed}, names)
        found = [torch.from_numpy(each) for each in given]
        if len(found) > 1:
            return dict(zip(names, found, strict=True))
        ending = self.description.ending
        return logits_of(found[0]) if ending is None else with_ending(found[0], ending)


def as_taken(images: Tensor, spec: InputSpec, layout: metadata.Layout | None) -> Array:
    """Normalised images (B, ...) as a file takes them.

    Args:
        images: channels first.
        spec: of the network.
        layout: of uint8 images, which the normalised ones came from; ``None`` for numbers.
    """
    if layout is None:
        return (images.movedim(1, -1) if spec.form == "nhwc" else images).contiguous().numpy()
    pixels = (denormalise(images, spec) * 255).round_().clamp_(0, 255).to(torch.uint8)
    return (pixels.permute(0, 2, 3, 1) if layout == "nhwc" else pixels).contiguous().numpy()


def open_onnx(
    path: Path, *, runtime: str = "onnxruntime", threads: int | None = None
) -> OnnxNetwork:
    """An exported file, ready to run.

    Args:
        path: of the file; its checksum has to be that in the manifest beside it, if there is one.
        runtime: ``onnxruntime`` or ``openvino``.
        threads: of the runtime; as many as PyTorch has where not given.

    Raises:
        ExportError: the file is damaged or was not exported by DreamQuant, or the runtime is
            missing or does not run it.
    """
    require("onnx", runtime)
    data = read_whole(path)
    description = metadata.read(properties_of(data, path), str(path))
    with running(runtime, path):
        session = RUNTIMES[runtime](data, threads=threads or torch.get_num_threads())
    model = part("onnx").load_model_from_string(data)
    network = OnnxNetwork(session, description, runtime, path, model)
    # Once, since a file may be sound and yet not what its metadata tell.
    network(torch.zeros(1, *description.input.shape))
    return network


@contextmanager
def running(runtime: str, path: Path) -> Iterator[None]:
    """Whatever the runtime raises inside becomes an :class:`ExportError` that names the file."""
    try:
        yield
    except Exception as error:  # runtimes raise types of their own
        raise ExportError(
            f"{runtime} cannot run the file: {one_line(error)}",
            where=str(path),
            remedy="export it again, or update the runtime",
        ) from error


def read_whole(path: Path) -> bytes:
    """The bytes of an exported file, as the manifest beside it describes them.

    Raises:
        ExportError: it cannot be read, or is another file than the manifest says.
        ResultError: the manifest is damaged.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ExportError(
            f"the file cannot be read: {error.strerror}", where=str(path), remedy="check the path"
        ) from error
    folder = path.parent
    if (folder / MANIFEST).is_file() and _is_another(path, read_manifest(folder)):
        raise ExportError(
            f"{path.name} is not the file that the manifest describes: its checksum differs",
            where=str(path),
            remedy="export it again or restore a copy",
        )
    return data


def _is_another(path: Path, manifest: Mapping[str, Any]) -> bool:
    if not names_file(manifest, path.name, path.parent):
        return False
    return read_checksum(manifest, path.name, path.parent) != sha256_file(path)


def properties_of(data: bytes, path: Path) -> dict[str, str]:
    """The ``metadata_props`` of an ONNX file.

    Raises:
        ExportError: it is damaged, or no ONNX file.
    """
    onnx = part("onnx")
    try:
        model = onnx.load_model_from_string(data)
        onnx.checker.check_model(model)
    except Exception as error:  # protobuf and the checker raise types of their own
        raise ExportError(
            f"{path.name} is not a whole ONNX file: {one_line(error, 120)}",
            where=str(path),
            remedy="export it again or restore a copy",
        ) from error
    return {entry.key: entry.value for entry in model.metadata_props}


class Kernels(NamedTuple):
    """How many nodes ONNX Runtime runs on integers and in float.

    Attributes:
        integer_convolutions: among the convolutions.
        float_convolutions: likewise.
        integer_products: among all other products of matrices, those of linear layers included.
        float_products: likewise.
    """

    integer_convolutions: int
    float_convolutions: int
    integer_products: int
    float_products: int


def kernels(model: bytes, *, threads: int) -> Kernels:
    """The kernels of the graph that ONNX Runtime makes of a file."""
    onnx = part("onnx")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimized.onnx"
        OrtSession(model, threads=threads, optimized=path)
        kinds = Counter(node.op_type for node in onnx.load(path).graph.node)
    return Kernels(
        *(
            sum(kinds[kind] for kind in group)
            for group in (
                _INTEGER_CONVOLUTIONS,
                _FLOAT_CONVOLUTIONS,
                _INTEGER_PRODUCTS,
                _FLOAT_PRODUCTS,
            )
        )
    )
