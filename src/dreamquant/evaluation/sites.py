"""Where a student rounds, and its teacher rounding at some of these places only."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from dreamquant.quantization.layers import ActivationQuantizer, ReluOutputs, Student

Kind = Literal["weight", "input", "relu"]


@dataclass(frozen=True)
class Site:
    """One place where a student rounds.

    Attributes:
        kind: a layer's ``weight``, a layer's ``input``, or what leaves a ``relu``.
        layer: its name within the user's module; of a ReLU, the layer that ran last before it,
            or empty where there was none.
        position: of a ReLU among those that a forward pass runs; 0 for the other kinds.
    """

    kind: Kind
    layer: str
    position: int = 0


@torch.no_grad()
def find_sites(teacher: nn.Module, student: Student, images: Tensor) -> list[Site]:
    """All sites of a student in the order in which a forward pass comes to them.

    Args:
        teacher: the network that the student was made from.
        student: says which layers, inputs and ReLU outputs are quantized.
        images: (B, C, H, W) for that one pass of the teacher.
    """
    found: list[Site] = []
    has_inputs = not student.relu_outputs

    def enter(layer: str, x: Tensor) -> Tensor:
        found.extend([*([Site("input", layer)] if has_inputs else []), Site("weight", layer)])
        return x

    def leave_relu(position: int) -> None:
        found.append(Site("relu", found[-1].layer if found else "", position))

    with ExitStack() as stack:
        for name in student.quantized_weights():
            layer = teacher.get_submodule(name)
            stack.enter_context(_entering(layer, partial(enter, name)))
        for position, place in enumerate(places := _nowhere(student)):
            place.register_forward_hook(lambda *_, position=position: leave_relu(position))
        _forward(teacher, {}, places, images)
    return list(dict.fromkeys(found))


def quantizer_of(student: Student, site: Site) -> ActivationQuantizer:
    """The activation quantizer at an ``input`` or ``relu`` site."""
    if site.kind == "relu":
        return cast(ActivationQuantizer, student.relu_outputs[site.position])
    return cast(ActivationQuantizer, student.network.get_submodule(site.layer).input_quantizer)


def rounded_weight(teacher: nn.Module, student: Student, layer: str) -> Tensor:
    """The teacher's weight, rounded as the student's was before it learned."""
    weight = cast(Tensor, teacher.get_submodule(layer).weight).detach()
    return student.quantized_weights()[layer].quantizer.rounded(weight)


@torch.no_grad()
def answer_with(
    teacher: nn.Module, student: Student, sites: Collection[Site], batches: Sequence[Tensor]
) -> Tensor:
    """Logits (N, classes) of the teacher when it rounds at ``sites`` and nowhere else.

    Weights are the teacher's own, rounded; activations are rounded as the student does.

    Args:
        teacher: left as it is.
        student: gives bits and activation ranges.
        sites: of :func:`find_sites`.
        batches: images (B, C, H, W) each, N in all.
    """
    weights = {
        f"{site.layer}.weight": rounded_weight(teacher, student, site.layer)
        for site in sites
        if site.kind == "weight"
    }
    relus = _nowhere(student)
    for site in sites:
        if site.kind == "relu":
            relus[site.position] = quantizer_of(student, site)
    with ExitStack() as stack:
        for site in sites:
            if site.kind == "input":
                layer = teacher.get_submodule(site.layer)
                stack.enter_context(_entering(layer, quantizer_of(student, site)))
        return torch.cat([_forward(teacher, weights, relus, images) for images in batches])


def _nowhere(student: Student) -> nn.ModuleList:
    return nn.ModuleList(nn.Identity() for _ in student.relu_outputs)


def _forward(
    teacher: nn.Module, weights: Mapping[str, Tensor], relus: nn.ModuleList, images: Tensor
) -> Tensor:
    with ReluOutputs(relus) if relus else nullcontext():
        logits: Tensor = functional_call(teacher, dict(weights), (images,))
    return logits.float()


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
