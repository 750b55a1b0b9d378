"""A student as tensors on disk: packed integer codes, their scales, and what stays in float.

Keys, for a layer ``L`` of the user's module:

- ``L.weight.codes``: uint8 bit stream of ``code - qmin``, dense, little-endian;
- ``L.weight.scale``, ``L.weight.zero_point``: float32 and int8, one per output channel;
- ``L.input.scale``, ``L.input.zero_point``: float32 and uint8 scalars (placement layer-input);
- ``relu_outputs.N.scale``, ``.zero_point``: likewise, for the N-th ReLU (placement relu-output);
- every other tensor under its own name in the module.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dreamquant.errors import ResultError
from dreamquant.quantization.affine import dequantize
from dreamquant.quantization.layers import ActivationQuantizer, Student
from dreamquant.results.packing import pack, unpack

_QUANTIZER_STATE = (".parametrizations.weight.", ".input_quantizer.")


def encode(student: Student) -> dict[str, Tensor]:
    """The tensors of a student whose training is over."""
    tensors = {
        name: tensor
        for name, tensor in student.network.state_dict().items()
        if not any(part in f".{name}" for part in _QUANTIZER_STATE)
    }
    for name, (latent, quantizer) in student.quantized_weights().items():
        codes = quantizer.codes(latent) - quantizer.grid.qmin
        tensors[f"{name}.weight.codes"] = pack(codes, quantizer.bits)
        tensors[f"{name}.weight.scale"] = quantizer.scale
        tensors[f"{name}.weight.zero_point"] = quantizer.zero_point.to(torch.int8)
    for name, activation in _activations(student).items():
        tensors[f"{name}.scale"] = activation.scale
        tensors[f"{name}.zero_point"] = activation.zero_point.to(torch.uint8)
    return dict(sorted(tensors.items()))


def decode(student: Student, tensors: dict[str, Tensor], where: str) -> None:
    """Fill a freshly converted student with the tensors of a saved one.

    Args:
        student: converted from the same architecture under the same scheme.
        tensors: from :func:`encode`; left as they are.
        where: the file they came from, for errors.

    Raises:
        ResultError: tensors are missing, left over, or of another shape.
    """
    state, rest = {}, dict(tensors)
    try:
        for name, (latent, quantizer) in student.quantized_weights().items():
            own = f"{name}.parametrizations.weight"
            shape = tuple(latent.shape)
            codes = unpack(rest.pop(f"{name}.weight.codes"), quantizer.bits, shape)
            scale = rest.pop(f"{name}.weight.scale")
            zero_point = rest.pop(f"{name}.weight.zero_point").to(torch.int32)
            column = [-1 if axis == quantizer.axis else 1 for axis in range(len(shape))]
            state[f"{own}.original"] = dequantize(
                codes.to(torch.int32) + quantizer.grid.qmin,
                scale.view(column),
                zero_point.view(column),
            )
            state[f"{own}.0.scale"], state[f"{own}.0.zero_point"] = scale, zero_point
            quantizer.is_fixed = True
        for name, activation in _activations(student).items():
            activation.scale.copy_(rest.pop(f"{name}.scale"))
            activation.zero_point.copy_(rest.pop(f"{name}.zero_point"))
    except KeyError as error:
        raise _misfit(f"the tensor {error} is missing", where) from error
    except RuntimeError as error:
        raise _misfit(str(error).splitlines()[0], where) from error
    _load_rest(student, state | rest, where)


def _load_rest(student: Student, state: dict[str, Tensor], where: str) -> None:
    own = {
        f"network.{name}": tensor
        for name, tensor in student.network.state_dict().items()
        if ".input_quantizer." in f".{name}"
    }
    relu = {
        name: tensor
        for name, tensor in student.state_dict().items()
        if name.startswith("relu_outputs.")
    }
    try:
        student.load_state_dict(
            {**{f"network.{name}": tensor for name, tensor in state.items()}, **own, **relu}
        )
    except RuntimeError as error:
        raise _misfit(" ".join(str(error).split()), where) from error


def _activations(student: Student) -> dict[str, ActivationQuantizer]:
    return {
        name.removeprefix("network.").replace(".input_quantizer", ".input"): quantizer
        for name, quantizer in student.activation_quantizers().items()
    }


def _misfit(what: str, where: str) -> ResultError:
    return ResultError(
        f"the saved student does not fit its network: {what}",
        where=where,
        remedy="load it with the code of the network it was made from",
    )
