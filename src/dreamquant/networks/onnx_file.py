"""Converts an ONNX file to PyTorch: nodes with weights become layers, other nodes functions.

Converters of other projects were tried. The maintained one, onnx2torch, reads operators up to
version 17, but PyTorch writes version 18 and later. The converted network is compared with ONNX
Runtime before it is used.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dreamquant.errors import NetworkError
from dreamquant.networks.choices import Form
from dreamquant.networks.found import Found
from dreamquant.networks.onnx_module import OnnxModule, converted, part
from dreamquant.networks.onnx_weights import whole
from dreamquant.networks.zoo import one_line

_LARGEST = 2**28  # values of one tensor; a small file can request more
_TOLERANCE = 1e-3  # relative to the largest output, because the order of sums differs
_TOLERANCE_HALF = 5e-2  # the same for sums in half precision
_SHOWN = 5
_FORMS: dict[
    tuple[bool, bool], Form
] = {  # key: whether it takes pixels, and whether channels are last
    (False, False): "nchw",
    (False, True): "nhwc",
    (True, False): "uint8-nchw",
    (True, True): "uint8-nhwc",
}
_REMEDY = "export it again from its source, or give the network as FILE.py:FACTORY"


@dataclass(frozen=True)
class OnnxFile:
    """A file that is read once, so that the hashed bytes are the converted bytes.

    Attributes:
        path: path of the file.
        data: its bytes, including weights from separate files.
        sha256: hash of the file and its separate weights, in hexadecimal.
    """

    path: Path
    data: bytes
    sha256: str


def names_onnx_file(name: str) -> bool:
    """Whether ``name`` is the name of an ONNX file."""
    return name.endswith(".onnx")


def read_onnx(name: str) -> OnnxFile:
    """Read the file of that name with its weights, without converting it.

    Raises:
        NetworkError: the file cannot be read.
    """
    path = Path(name)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise NetworkError(
            f"the file cannot be read: {error.strerror}", where=name, remedy="check the path"
        ) from error
    return OnnxFile(path, *whole(path, data))


def network_in(file: OnnxFile, shape: tuple[int, ...] | None = None) -> Found:
    """Convert the network in the file for one input size.

    Args:
        file: from :func:`read_onnx`.
        shape: shape of one input, channels first; required if the file allows several.

    Raises:
        NetworkError: the file is damaged, needs too much memory, has nodes that cannot be
                converted, or the converted network differs from the file in ONNX Runtime.
    """
    model = _parsed(file)
    entry = _only_input(model, file)
    size = _size(entry, shape, file)
    if size is None:
        raise NetworkError(
            f"{file.path.name} takes inputs of several sizes",
            where=str(file.path),
            remedy="give --input, such as 3x224x224",
        )
    _require_small(entry.name, size, file)
    last = _channels_last(size)
    model = _folded(model, size, file)
    module, refused = converted(model, entry.name, channels_last=last)
    if refused:
        raise _unsupported(refused, file)
    own = (size[-1], *size[:-1]) if last else size
    kind = _kind(entry, file)
    _require_equal(module, _Inputs(entry.name, own, kind, last), file)
    outputs = tuple(output.name for output in model.graph.output)
    pixels = kind == np.uint8
    return Found(
        module,
        source=file.path.name,
        shape=own,
        mean=(0.0,) * own[0] if pixels else None,
        std=(1 / 255,) * own[0] if pixels else None,
        notes=(
            f"ONNX input {entry.name!r}{', channels last' * last}, output {', '.join(outputs)!r}",
            *_other_numbers(kind),
            *_folded_norms(model),
        ),
        entry=entry.name,
        outputs=outputs,
        form=_FORMS[pixels, last],
    )


def _other_numbers(kind: Any) -> tuple[str, ...]:
    if kind in (np.uint8, np.float32):
        return ()
    return (f"the file takes {kind.__name__}; exported files take float32",)


@dataclass(frozen=True)
class _Inputs:
    """The input of the file: name, shape with channels first, type, and order of axes."""

    name: str
    shape: tuple[int, ...]
    kind: Any
    channels_last: bool

    def one(self, image: Tensor) -> dict[str, NDArray[Any]]:
        """An image (C, ...) in the form that the file expects."""
        ordered = image.movedim(0, -1) if self.channels_last else image
        return {self.name: ordered[None].numpy().astype(self.kind)}

    def draw(self) -> Tensor:
        """Two random images; integers from 0 to 255 if the file expects them."""
        random = torch.Generator().manual_seed(0)
        if self.kind == np.uint8:
            return torch.randint(0, 256, (2, *self.shape), generator=random).float()
        return torch.randn(2, *self.shape, generator=random)


def _parsed(file: OnnxFile) -> Any:
    onnx = part("onnx")
    try:
        model = onnx.load_model_from_string(file.data)
        onnx.checker.check_model(model)
        model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except Exception as error:  # protobuf, the checker and shape inference have no common exception
        raise _damaged(file, error) from error
    for value in (*model.graph.input, *model.graph.value_info):
        sides = [side.dim_value for side in value.type.tensor_type.shape.dim]
        _require_small(value.name, sides, file)
    return model


def _require_small(name: str, sides: Sequence[int], file: OnnxFile) -> None:
    if math.prod(max(side, 1) for side in sides) > _LARGEST:
        raise NetworkError(
            f"the tensor {name} would have {' x '.join(map(str, sides))} values",
            where=str(file.path),
            remedy=f"give a network whose tensors have at most {_LARGEST:,} values",
        )


def _folded(model: Any, size: tuple[int, ...], file: OnnxFile) -> Any:
    """The model for one input of that size, with constants folded."""
    sides = _only_input(model, file).type.tensor_type.shape.dim
    for side, value in zip(sides, (1, *size), strict=True):
        side.dim_value = value
    del model.graph.value_info[:]
    optimize = part("onnxscript.optimizer").optimize
    try:
        return optimize(model)
    except Exception as error:  # as above
        raise _damaged(file, error) from error


def _damaged(file: OnnxFile, error: Exception) -> NetworkError:
    return NetworkError(
        f"{file.path.name} is damaged or is not an ONNX file: {one_line(error)}",
        where=str(file.path),
        remedy=_REMEDY,
    )


def _only_input(model: Any, file: OnnxFile) -> Any:
    weights = {tensor.name for tensor in model.graph.initializer}
    entries = [entry for entry in model.graph.input if entry.name not in weights]
    if len(entries) != 1:
        raise NetworkError(
            f"the network has {len(entries)} inputs: {', '.join(e.name for e in entries)}",
            where=str(file.path),
            remedy="only networks with one input can be quantized",
        )
    return entries[0]


def _size(entry: Any, shape: tuple[int, ...] | None, file: OnnxFile) -> tuple[int, ...] | None:
    """The shape of one input, in the file's order; ``None`` if it is free."""
    batch, *sides = [side.dim_value for side in entry.type.tensor_type.shape.dim] or [0]
    if batch > 1 or not sides:
        raise NetworkError(
            "the file does not take a batch of one",
            where=str(file.path),
            remedy="export it with a batch of one, or with a free batch size",
        )
    if shape is None:
        return tuple(sides) if min(sides) > 0 else None
    last = (*shape[1:], shape[0])
    for order in (shape, last):
        fits = all(side in (0, given) for side, given in zip(sides, order, strict=False))
        if fits and len(order) == len(sides):
            return order
    own = "x".join(str(side or "N") for side in sides)
    known = f"leave the option out: the file takes {own}"
    raise NetworkError(
        f"{file.path.name} does not take an input of {'x'.join(map(str, shape))}",
        where="--input",
        remedy=known if min(sides) > 0 else f"the file takes {own}: give numbers for N",
    )


def _channels_last(size: tuple[int, ...]) -> bool:
    return len(size) == 3 and size[-1] in (1, 3) and size[0] not in (1, 3)


def _kind(entry: Any, file: OnnxFile) -> Any:
    kinds = {1: np.float32, 2: np.uint8, 10: np.float16, 11: np.float64}
    if (kind := entry.type.tensor_type.elem_type) not in kinds:
        raise NetworkError(
            "the file takes integers that are not pixels",
            where=str(file.path),
            remedy="give a file that takes float or uint8",
        )
    return kinds[kind]


def _folded_norms(model: Any) -> tuple[str, ...]:
    kinds = [node.op_type for node in model.graph.node]
    biased = sum(node.op_type == "Conv" and len(node.input) > 2 for node in model.graph.node)
    if "BatchNormalization" in kinds or not biased:
        return ()
    return (
        f"no batch norm in the file; if there was one, it is folded into its {biased} convolutions",
    )


def _unsupported(refused: list[str], file: OnnxFile) -> NetworkError:
    more = f"; and {len(refused) - _SHOWN} more" if len(refused) > _SHOWN else ""
    return NetworkError(
        f"{len(refused)} nodes cannot be converted: {'; '.join(refused[:_SHOWN])}{more}",
        where=str(file.path),
        remedy=_REMEDY,
    )


def _require_equal(module: OnnxModule, inputs: _Inputs, file: OnnxFile) -> None:
    """Compare a batch of two inputs with the results of ONNX Runtime for each of them."""
    runtime = part("onnxruntime")
    images = inputs.draw()
    try:
        session = runtime.InferenceSession(file.data, providers=["CPUExecutionProvider"])
        singles = [session.run(None, inputs.one(image)) for image in images]
        with torch.no_grad():
            module.eval().settle(images)
            found = module(images)
    except Exception as error:  # either may raise anything
        raise _not_the_same(file, one_line(error)) from error
    tolerance = _TOLERANCE_HALF if inputs.kind == np.float16 else _TOLERANCE
    several = found if isinstance(found, tuple) else (found,)
    for ours, *theirs in zip(several, *singles, strict=True):
        wanted = torch.from_numpy(np.concatenate(theirs).astype(np.float32))
        same_shape = ours.shape == wanted.shape
        gap = float((ours - wanted).abs().max()) if same_shape else math.inf
        if not gap <= tolerance * float(wanted.abs().max()) + 1e-6:
            raise _not_the_same(file, f"its outputs deviate by {gap:.2g}")


def _not_the_same(file: OnnxFile, reason: str) -> NetworkError:
    return NetworkError(
        f"the network in {file.path.name} cannot be converted: {reason}",
        where=str(file.path),
        remedy=_REMEDY,
    )
