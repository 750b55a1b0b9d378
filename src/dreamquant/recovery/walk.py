"""Student and teacher side by side, layer by layer, on all images at once.

The student comes to each activation quantizer and each layer with what everything before it, in
its final form, makes of the images; the teacher gives what the layer should make of them. Where a
layer's result enters a sum, as at the end of a residual block, it should correct the errors of
the sum's other operand too: such a layer's turn comes at the sum, and its result is computed anew.
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

# Slopes of batch norms below this leave nothing of a layer that could correct an error.
_LEAST_SLOPE = 1e-6


class RangeMet(NamedTuple):
    """All images have come to an activation quantizer.

    Attributes:
        name: of the quantizer within the student.
        quantizer: whose range may now be placed.
        values: what it is to quantize, a tensor of each batch.
    """

    name: str
    quantizer: ActivationQuantizer
    values: list[Tensor]


class LayerMet(NamedTuple):
    """All images have come to a layer.

    Attributes:
        name: of the layer.
        inputs: what the student's layer reads, a tensor of each batch.
        wanted: what its output should be, a tensor of each batch.
    """

    name: str
    inputs: list[Tensor]
    wanted: list[Tensor]


class _Seen(NamedTuple):
    """What a pass knows of a layer: what it reads or gives, and the sum's other operand."""

    tensor: Tensor
    other: Tensor | None


@contextmanager
def walk(
    student: Student,
    teacher: nn.Module,
    batches: Sequence[Tensor],
    branches: Mapping[str, Branch],
) -> Iterator[Iterator[RangeMet | LayerMet]]:
    """Meet every activation quantizer and every layer of a student in the order executed.

    What is changed of a quantizer or a layer, between one meeting and the next, is in force for
    all that comes later. A layer that runs several times is met the first time.

    Args:
        student: in eval mode, not observing.
        teacher: in eval mode, its modules named as the student's.
        batches: normalised images (B, C, H, W) each; all wait in the network at once.
        branches: of the layers to meet, from :func:`find_branches`.
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
            raise RuntimeError(f"the teacher does not come to {name} when the student does")
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
    """What the batch norm after a layer multiplies each channel by; `None` without one."""
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
        raise RuntimeError(f"{names}: no sum came, unlike in the pass that found the branches")


class _Waiting(NamedTuple):
    """A layer that ran and whose turn comes at a sum."""

    name: str
    tip: Tensor  # what enters the sum
    seen: Tensor  # what the layer read, of a student; what it gave, of a teacher


def _waiting() -> dict[int, _Waiting]:
    """Layers in waiting of the current pass, by id of what enters the sum."""
    return cast(dict[int, _Waiting], cast(Pass, current()).notes)


class _Sums(TorchFunctionMode):
    """Stops at sums that layers in waiting enter.

    Args:
        again: of a student, computes a layer's result anew once it is solved.
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
        # Past the hooks of this walk: nobody is to wait for the layer twice.
        y: Tensor = self.network.get_submodule(layer.name).forward(layer.seen)
        norm = self.branches[layer.name].norm
        return y if norm is None else self.network.get_submodule(norm).forward(y)


@contextmanager
def _watched(
    network: nn.Module, branches: Mapping[str, Branch], *, student: bool
) -> Iterator[None]:
    """Let passes through ``network`` stop at its layers, or note those whose turn comes later."""
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
