"""The places where a student rounds, and the teacher with rounding at some of these places."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from dreamquant.networks.attention import SplitAttention, split_attention
from dreamquant.networks.outputs import as_one
from dreamquant.quantization.quantizers import ActivationQuantizer
from dreamquant.quantization.stored import layer_input
from dreamquant.quantization.student import Student

Kind = Literal["weight", "input", "relu", "stored", "operand"]
# Kind of a site for each group of the student's quantizers.
_KINDS: dict[str, Kind] = {"relu_outputs": "relu", "stored": "stored", "operands": "operand"}


@dataclass(frozen=True)
class Site:
    """One place where a student rounds.

    Attributes:
        kind: a layer's ``weight``, a layer's ``input``, the output of an activation function
            (``relu``), an element-wise or concat input (``stored``), or an ``operand`` of a matrix
            product.
        layer: name of the layer within the user's module; for the last three kinds, the layer that
            ran last before it, or empty if there was none.
        position: number among sites of these kinds in a forward pass; 0 for the other kinds.
    """

    kind: Kind
    layer: str
    position: int = 0


def twin(teacher: nn.Module, student: Student) -> nn.Module:
    """The teacher with the modules that the student is made of: itself, or a copy of it."""
    if any(isinstance(module, SplitAttention) for module in student.network.modules()):
        return split_attention(copy.deepcopy(teacher))
    return teacher


@torch.no_grad()
def find_sites(teacher: nn.Module, student: Student, images: Tensor) -> list[Site]:
    """All sites of a student in the order of a forward pass.

    Args:
        teacher: the :func:`twin` of the network that the student was made from.
        student: determines which layers, inputs and other activations are quantized.
        images: (B, C, H, W) for one pass of the teacher.
    """
    found: list[Site] = []
    inputs, owners = student.input_quantizers(), student.quantized_layers()

    def enter(layer: str, x: Tensor) -> Tensor:
        read = [Site("input", layer)] if layer in inputs else []
        found.extend([*read, Site("weight", owners[layer])])
        return layer_input(x)

    def pass_by(kind: Kind, position: int) -> None:
        found.append(Site(kind, found[-1].layer if found else "", position))

    places = _nowhere(student)
    for group, quantizers in places.items():
        for position, place in enumerate(quantizers):
            place.register_forward_hook(lambda *_, at=(_KINDS[group], position): pass_by(*at))
    changes = {name: partial(enter, name) for name in owners}
    _forward(teacher, student, {}, changes, places, images)
    return list(dict.fromkeys(found))


def quantizer_of(student: Student, site: Site) -> ActivationQuantizer:
    """The activation quantizer at a site that is not a weight."""
    if site.kind == "input":
        layer = student.network.get_submodule(site.layer)
        return cast(ActivationQuantizer, layer.input_quantizer)
    group = next(group for group, kind in _KINDS.items() if kind == site.kind)
    return cast(ActivationQuantizer, student.groups()[group][site.position])


def rounded_weight(teacher: nn.Module, student: Student, layer: str) -> Tensor:
    """The teacher's weight, rounded as the student's was before training."""
    weight = cast(Tensor, teacher.get_submodule(layer).weight).detach()
    return student.quantized_weight(layer).quantizer.rounded(weight)


@torch.no_grad()
def answer_with(
    teacher: nn.Module, student: Student, sites: Collection[Site], batches: Sequence[Tensor]
) -> Tensor:
    """Outputs (N, ...) of the teacher when it rounds only at ``sites``.

    Weights are the teacher's own, rounded; activations are rounded as in the student.

    Args:
        teacher: it is not changed.
        student: gives bits and activation ranges.
        sites: from :func:`find_sites`.
        batches: images (B, C, H, W) each, N in all.
    """
    weights: dict[str, Tensor] = {}
    changes: dict[str, Callable[[Tensor], Tensor]] = dict.fromkeys(
        student.quantized_layers(), layer_input
    )
    places = _nowhere(student)
    for site in sites:
        if site.kind == "weight":
            weights[f"{site.layer}.weight"] = rounded_weight(teacher, student, site.layer)
        elif site.kind == "input":
            changes[site.layer] = partial(_quantized_input, quantizer_of(student, site))
        else:
            group = next(group for group, kind in _KINDS.items() if kind == site.kind)
            places[group][site.position] = quantizer_of(student, site)
    answers = [_forward(teacher, student, weights, changes, places, images) for images in batches]
    return torch.cat(answers)


def _quantized_input(quantizer: ActivationQuantizer, x: Tensor) -> Tensor:
    rounded: Tensor = quantizer(layer_input(x))
    return rounded


def _nowhere(student: Student) -> dict[str, nn.ModuleList]:
    return {
        group: nn.ModuleList(nn.Identity() for _ in quantizers)
        for group, quantizers in student.groups().items()
    }


def _forward(
    teacher: nn.Module,
    student: Student,
    weights: Mapping[str, Tensor],
    changes: Mapping[str, Callable[[Tensor], Tensor]],
    places: Mapping[str, nn.ModuleList],
    images: Tensor,
) -> Tensor:
    with ExitStack() as stack:
        for name, change in changes.items():
            stack.enter_context(_entering(teacher.get_submodule(name), change))
        stack.enter_context(student.sites.quantizing(places))
        output = functional_call(teacher, dict(weights), (images,))
    return as_one(output).float()


@contextmanager
def _entering(layer: nn.Module, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Let a layer see ``change(x)`` in place of its input x."""

    def hook(
        _: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if inputs:
            return (change(inputs[0]), *inputs[1:]), keywords
        return inputs, keywords | {"input": change(keywords["input"])}

    handle = layer.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()
