"""Converts a student to tensors for a file: packed codes, scales, and float tensors.

Keys, for a layer ``L`` of the user's module:

- ``L.weight.codes``: uint8 bit stream of ``code + 2**(bits - 1)``, dense, little-endian;
- ``L.weight.scale``, ``L.weight.zero_point``: float32 and int8, one per output channel;
- ``L.input.scale``, ``L.input.zero_point``: float32 and uint8 scalars (placement layer-input);
- ``relu_outputs.N.scale``, ``.zero_point``: the same for the N-th activation function (placement
  relu-output);
- ``stored.N.scale``, ``.zero_point``: the same for the N-th element-wise or concat input;
- ``operands.N.scale``, ``.zero_point``: the same for the N-th operand (placement operands);
- every other tensor with its name in the module.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dreamquant.errors import ResultError
from dreamquant.quantization.affine import dequantize, signed_grid
from dreamquant.quantization.quantizers import ActivationQuantizer
from dreamquant.quantization.student import Student
from dreamquant.results.packing import pack, unpack


def encode(student: Student) -> dict[str, Tensor]:
    """The tensors of a trained student."""
    tensors = student.float_state()
    for name, (latent, quantizer) in student.quantized_weights().items():
        codes = quantizer.codes(latent) - signed_grid(quantizer.bits).qmin
        tensors[f"{name}.weight.codes"] = pack(codes, quantizer.bits)
        tensors[f"{name}.weight.scale"] = quantizer.scale
        tensors[f"{name}.weight.zero_point"] = quantizer.zero_point.to(torch.int8)
    for name, activation in _activations(student).items():
        tensors[f"{name}.scale"] = activation.scale
        tensors[f"{name}.zero_point"] = activation.zero_point.to(torch.uint8)
    return dict(sorted(tensors.items()))


@torch.no_grad()
def decode(student: Student, tensors: dict[str, Tensor], where: str) -> None:
    """Load the tensors of a saved student into a newly converted one.

    Args:
        student: student of the same architecture and scheme.
        tensors: tensors of :func:`encode`; they are not changed.
        where: file of the tensors, for errors.

    Raises:
        ResultError: tensors are missing or left over, or have a wrong shape or type.
    """
    tensors = _per_group(student, tensors)
    _require_fit(tensors, _layout(student), where)
    for name, (latent, quantizer) in student.quantized_weights().items():
        scale, zero_point = (tensors[f"{name}.weight.{part}"] for part in ("scale", "zero_point"))
        quantizer.place(scale, zero_point)
        quantizer.follows = False
        codes = unpack(tensors[f"{name}.weight.codes"], quantizer.bits, tuple(latent.shape))
        codes = codes.to(torch.int32) + signed_grid(quantizer.bits).qmin
        latent.copy_(dequantize(codes, *quantizer.parameters_of(latent)))
    for name, activation in _activations(student).items():
        activation.place(tensors[f"{name}.scale"], tensors[f"{name}.zero_point"])
    floats = {name: tensors[name] for name in student.float_state()}
    # Not strict, because the tensors of quantizers are already set.
    student.network.load_state_dict(floats, strict=False)


def _per_group(student: Student, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Scales of transposed convolutions for each group; older versions shared them."""
    given = {}
    for name, (_, quantizer) in student.quantized_weights().items():
        for key in (f"{name}.weight.scale", f"{name}.weight.zero_point"):
            if key in tensors and tensors[key].numel() * quantizer.groups == len(quantizer.scale):
                given[key] = tensors[key].repeat(quantizer.groups)
    return tensors | given


def _layout(student: Student) -> dict[str, str]:
    """Type and shape of every tensor of :func:`encode`."""
    layout = {name: _described(tensor) for name, tensor in student.float_state().items()}
    for name, (latent, quantizer) in student.quantized_weights().items():
        channels, size = len(quantizer.scale), math.ceil(latent.numel() * quantizer.bits / 8)
        layout[f"{name}.weight.codes"] = f"uint8 ({size},)"
        layout[f"{name}.weight.scale"] = f"float32 ({channels},)"
        layout[f"{name}.weight.zero_point"] = f"int8 ({channels},)"
    for name in _activations(student):
        layout[f"{name}.scale"], layout[f"{name}.zero_point"] = "float32 ()", "uint8 ()"
    return layout


def _described(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _require_fit(tensors: dict[str, Tensor], layout: dict[str, str], where: str) -> None:
    found = {name: _described(tensor) for name, tensor in tensors.items()}
    for name in sorted(found.keys() | layout.keys()):
        if found.get(name) != layout.get(name):
            raise ResultError(
                f"the saved student does not fit its network: {name} is "
                f"{found.get(name, 'missing')} instead of {layout.get(name, 'absent')}",
                where=where,
                remedy="load it with the code of the network that it was made from",
            )


def _activations(student: Student) -> dict[str, ActivationQuantizer]:
    return {
        name.removeprefix("network.").replace(".input_quantizer", ".input"): quantizer
        for name, quantizer in student.activation_quantizers().items()
    }
