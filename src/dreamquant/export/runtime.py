"""Runs exported files in ONNX Runtime and OpenVINO."""

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
    """A network that is loaded in a runtime."""

    def run(self, feed: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        """Run the network and return the named outputs."""
        ...


class OrtSession:
    """A network in ONNX Runtime on the CPU.

    Args:
        model: bytes of the file.
        threads: number of threads.
        optimized: file for the optimized graph.
        exact: use kernels in which no sum saturates; they are slower without VNNI.
    """

    def __init__(
        self, model: bytes, *, threads: int, optimized: Path | None = None, exact: bool = False
    ) -> None:
        ort = part("onnxruntime")
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3  # errors only; they are raised too
        if optimized is not None:
            options.optimized_model_filepath = str(optimized)
        if exact:
            options.add_session_config_entry(EXACT, "1")
        self._session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def run(self, feed: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        """Run the network and return the named outputs."""
        result: list[Array] = self._session.run(list(outputs), dict(feed))
        return result


@cache
def _core(openvino: ModuleType) -> Any:
    """The only core of this process; it lives as long as the process.

    The CPU plugin of a core sets a signal stack for the thread that compiles first. If another
    thread deletes the core, that stack is unmapped but still set. The next Ctrl-C then causes a
    segmentation fault (seen in OpenVINO 2026.4).
    """
    return openvino.Core()


class OpenVinoSession:
    """A network in OpenVINO on the CPU; for the arguments see :class:`OrtSession`."""

    def __init__(self, model: bytes, *, threads: int) -> None:
        core = _core(part("openvino"))
        read = core.read_model(model)
        # Otherwise it computes in bfloat16 on processors that support it.
        options = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
        self._compiled = core.compile_model(read, "CPU", options)

    def run(self, feed: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        """Run the network and return the named outputs."""
        found = self._compiled(dict(feed))
        return [np.asarray(found[name]) for name in outputs]


RUNTIMES: dict[str, type[OrtSession] | type[OpenVinoSession]] = {
    "onnxruntime": OrtSession,
    "openvino": OpenVinoSession,
}


class OnnxNetwork(nn.Module):
    """An exported file as a module, from normalised images (B, ...) to outputs.

    Outputs of a classifier are converted to logits. Several outputs are a dictionary by name.

    Args:
        session: session that runs the file.
        description: metadata of the file. If it takes uint8 images, normalised images are
            converted back to uint8.
        runtime: runtime of the session.
        path: path of the file.
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
    """Convert normalised images (B, ...) to the input of a file.

    Args:
        images: normalised images, channels first.
        spec: input of the network.
        layout: layout of the file's uint8 images; ``None`` for normalised numbers.
    """
    if layout is None:
        return (images.movedim(1, -1) if spec.form == "nhwc" else images).contiguous().numpy()
    pixels = (denormalise(images, spec) * 255).round_().clamp_(0, 255).to(torch.uint8)
    return (pixels.permute(0, 2, 3, 1) if layout == "nhwc" else pixels).contiguous().numpy()


def open_onnx(
    path: Path, *, runtime: str = "onnxruntime", threads: int | None = None
) -> OnnxNetwork:
    """Open an exported file for a runtime.

    Args:
        path: path of the file. If there is a manifest beside it, the checksum is compared.
        runtime: ``onnxruntime`` or ``openvino``.
        threads: number of threads of the runtime; by default PyTorch's number.

    Raises:
        ExportError: the file is damaged or was not exported by DreamQuant, or the runtime is
                missing or cannot run it.
    """
    require("onnx", runtime)
    data = read_whole(path)
    description = metadata.read(properties_of(data, path), str(path))
    with running(runtime, path):
        session = RUNTIMES[runtime](data, threads=threads or torch.get_num_threads())
    model = part("onnx").load_model_from_string(data)
    network = OnnxNetwork(session, description, runtime, path, model)
    # One run, because a valid file may not fit its metadata.
    network(torch.zeros(1, *description.input.shape))
    return network


@contextmanager
def running(runtime: str, path: Path) -> Iterator[None]:
    """Turn any exception of the runtime into an :class:`ExportError` that names the file."""
    try:
        yield
    except Exception as error:  # runtimes raise their own types
        raise ExportError(
            f"{runtime} cannot run the file: {one_line(error)}",
            where=str(path),
            remedy="export it again, or update the runtime",
        ) from error


def read_whole(path: Path) -> bytes:
    """Read the bytes of an exported file and compare them with the manifest beside it.

    Raises:
        ExportError: the file cannot be read, or differs from the manifest.
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
        ExportError: the file is damaged or is not an ONNX file.
    """
    onnx = part("onnx")
    try:
        model = onnx.load_model_from_string(data)
        onnx.checker.check_model(model)
    except Exception as error:  # protobuf and the checker raise their own types
        raise ExportError(
            f"{path.name} is not a complete ONNX file: {one_line(error, 120)}",
            where=str(path),
            remedy="export it again or restore a copy",
        ) from error
    return {entry.key: entry.value for entry in model.metadata_props}


class Kernels(NamedTuple):
    """Numbers of nodes that ONNX Runtime runs on integers and in float.

    Attributes:
        integer_convolutions: convolutions on integers.
        float_convolutions: convolutions in float.
        integer_products: matrix products on integers, including linear layers.
        float_products: matrix products in float, including linear layers.
    """

    integer_convolutions: int
    float_convolutions: int
    integer_products: int
    float_products: int


def kernels(model: bytes, *, threads: int) -> Kernels:
    """Count the kernels of the graph that ONNX Runtime makes from a file."""
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
