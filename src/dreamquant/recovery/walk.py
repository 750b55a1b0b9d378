"""A walk through student and teacher together, layer by layer, on all images at once.

At each activation quantizer and each layer, the student's inputs are computed by everything before
it in its final form, and the teacher gives the wanted output. Where the output of a layer enters a
sum, as at the end of a residual block, the layer should correct the error of the other operand too.
Such a layer is solved when the sum runs, and its output is then computed again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from dreamquant.quantization.quantizers import ActivationQuantizer
from dreamquant.quantization.student import Student
from dreamquant.recovery.adapted import Adapted
from dreamquant.recovery.branches import Branch, is_in_place, operands
from dreamquant.recovery.passes import Pass, advance_all, current, passes

# Where the slope of a batch norm is below this, the layer before it cannot correct an error.
_LEAST_SLOPE = 1e-6


class RangeMet(NamedTuple):
    """The walk has reached an activation quantizer with all images.

    Attributes:
        name: name of the quantizer in the student.
        quantizer: the quantizer, whose range can now be set.
        values: the values to be quantized, one tensor for each batch.
    """

    name: str
    quantizer: ActivationQuantizer
    values: list[Tensor]


class LayerMet(NamedTuple):
    """The walk has reached a layer with all images.

    Attributes:
        name: name of the layer.
        inputs: inputs of the student's layer, one tensor for each batch.
        wanted: wanted outputs, one tensor for each batch.
    """

    name: str
    inputs: list[Tensor]
    wanted: list[Tensor]


class _Seen(NamedTuple):
    """A layer's tensor in one pass, and the other operand of the sum that reads it."""

    tensor: Tensor
    other: Tensor | None


@contextmanager
def walk(
    student: Student,
    teacher: nn.Module,
    batches: Sequence[Tensor],
    branches: Mapping[str, Branch],
) -> Iterator[Iterator[RangeMet | LayerMet]]:
    """Visit every activation quantizer and every layer of a student in the order executed.

    A change to a quantizer or a layer affects everything after it. A layer that runs several times
    is visited at its first run.

    Args:
        student: in eval mode, not observing.
        teacher: in eval mode; its modules have the names of the student's.
        batches: normalised images (B, C, H, W) each; their forward passes all run at the same time.
        branches: of the layers to visit, from :func:`find_branches`.
    """
    with ExitStack() as stack:
        stack.enter_context(_watched_ranges(student))
        stack.enter_context(_watched(student.network, branches, student=True))
        stack.enter_context(_watched(teacher, branches, student=False))
        again = _Again(student.network, branches)
        students = stack.enter_context(passes([partial(_run, student, again, x) for x in batches]))
        teachers = stack.enter_context(passes([partial(_run, teacher, None, x) for x in batches]))
        yield _meetings(student, branches, students, teachers)


def _meetings(
    student: Student,
    branches: Mapping[str, Branch],
    students: Sequence[Pass],
    teachers: Sequence[Pass],
) -> Iterator[RangeMet | LayerMet]:
    quantizers = student.activation_quantizers()
    while (met := advance_all(students)) is not None:
        place, seen = met
        name = cast(str, place)
        if name in quantizers:
            yield RangeMet(name, quantizers[name], seen)
            continue
        given = advance_all(teachers)
        if given is None or given[0] != place:
            raise RuntimeError(f"teacher and student do not run {name} in the same order")
        slope = slope_of(student.network, branches[name])
        wanted = [_wanted(p, q, slope) for p, q in zip(given[1], seen, strict=True)]
        yield LayerMet(name, [q.tensor for q in seen], wanted)


def _wanted(teacher: _Seen, student: _Seen, slope: Tensor | None) -> Tensor:
    if teacher.other is None or student.other is None:
        return teacher.tensor
    missing = teacher.other - student.other
    if slope is not None:
        wide = slope.view(-1, *[1] * (missing.dim() - 2))
        missing = torch.where(wide.abs() < _LEAST_SLOPE, 0, missing / wide)
    return teacher.tensor + missing


def slope_of(network: nn.Module, branch: Branch) -> Tensor | None:
    """The factor of each channel in the batch norm after a layer; ``None`` without a batch norm."""
    if branch.norm is None:
        return None
    norm = cast(nn.BatchNorm2d, network.get_submodule(branch.norm))
    assert norm.running_var is not None
    slope = (norm.running_var + norm.eps).rsqrt()
    if isinstance(norm.forward, Adapted):
        slope = slope * norm.forward.slope
    return slope * norm.weight if norm.affine else slope


def _run(forward: Callable[[Tensor], Tensor], again: _Again | None, images: Tensor) -> None:
    with _Sums(again):
        forward(images)
    if left := _waiting():
        names = ", ".join(layer.name for layer in left.values())
        raise RuntimeError(
            f"{names}: no sum read the output, unlike in the pass that found the branches"
        )


class _Waiting(NamedTuple):
    """A layer that has run and will be solved at a sum."""

    name: str
    tip: Tensor  # the operand of the sum
    seen: Tensor  # the input of a student's layer; the output of a teacher's


def _waiting() -> dict[int, _Waiting]:
    """The waiting layers of the current pass, by id of the operand of the sum."""
    return cast(dict[int, _Waiting], cast(Pass, current()).notes)


class _Sums(TorchFunctionMode):
    """Stops at sums that read the output of a waiting layer.

    Args:
        again: for a student, computes a layer's output again after it is solved.
    """

    def __init__(self, again: _Again | None) -> None:
        super().__init__()
        self.again = again

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        pair = operands(func, args, kwargs)
        if pair is None:
            return func(*args, **kwargs)
        for mine, other in (pair, pair[::-1]):
            layer = _waiting().pop(id(mine), None)
            if layer is not None:
                cast(Pass, current()).stop(layer.name, _Seen(layer.seen, other))
                if self.again is not None:
                    total = self.again(layer) + other
                    return pair[0].copy_(total) if is_in_place(func) else total
        return func(*args, **kwargs)


class _Again(NamedTuple):
    network: nn.Module
    branches: Mapping[str, Branch]

    def __call__(self, layer: _Waiting) -> Tensor:
        # Calls forward, not the module: the hooks of this walk must not run a second time.
        y: Tensor = self.network.get_submodule(layer.name).forward(layer.seen)
        norm = self.branches[layer.name].norm
        return y if norm is None else self.network.get_submodule(norm).forward(y)


@contextmanager
def _watched(
    network: nn.Module, branches: Mapping[str, Branch], *, student: bool
) -> Iterator[None]:
    """Make passes through ``network`` stop at its layers, or at sums that read their outputs."""
    handles = []
    for name, branch in branches.items():
        layer = network.get_submodule(name)
        if branch.summed:
            handles.append(layer.register_forward_hook(partial(_note, name, student)))
            if branch.norm is not None:
                norm = network.get_submodule(branch.norm)
                handles.append(norm.register_forward_hook(_pass_on))
        elif student:
            handles.append(layer.register_forward_pre_hook(partial(_enter, name)))
        else:
            handles.append(layer.register_forward_hook(partial(_leave, name)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _enter(name: str, _: nn.Module, inputs: tuple[Any, ...]) -> None:
    _stop(name, _Seen(inputs[0], None))


def _leave(name: str, _: nn.Module, inputs: tuple[Any, ...], y: Tensor) -> None:
    _stop(name, _Seen(y, None))


def _note(name: str, student: bool, _: nn.Module, inputs: tuple[Any, ...], y: Tensor) -> None:
    if current() is not None:
        _waiting()[id(y)] = _Waiting(name, y, inputs[0] if student else y)


def _pass_on(_: nn.Module, inputs: tuple[Any, ...], y: Tensor) -> None:
    if current() is not None and (layer := _waiting().pop(id(inputs[0]), None)) is not None:
        _waiting()[id(y)] = layer._replace(tip=y)


@contextmanager
def _watched_ranges(student: Student) -> Iterator[None]:
    handles = [
        quantizer.register_forward_pre_hook(lambda _, inputs, name=name: _stop(name, inputs[0]))
        for name, quantizer in student.activation_quantizers().items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _stop(name: str, seen: Any) -> None:
    here = current()
    if here is not None and name not in here.met:
        here.met.add(name)
        here.stop(name, seen)
