"""Replaces weights that are computed from other tensors by their values: weight norm, pruning ...

In eval mode such a weight is constant. The old and the new interface of PyTorch are recognised, in
modules and in the names of a checkpoint.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

_PARAMETRIZED = ".parametrizations."


def bake(module: nn.Module) -> tuple[str, ...]:
    """Replace every computed weight of ``module``, in eval mode, by a parameter with its value.

    Returns:
        Descriptions of the replaced weights; empty if there were none.
    """
    found: Counter[str] = Counter()
    with torch.no_grad():
        for part in list(module.modules()):
            found.update(_baked_by_hooks(part))
            if parametrize.is_parametrized(part):
                found.update(_baked_parametrizations(part))
            _detach(part)
    return _in_words(found)


def bake_tensors(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Do the same for the tensors of a checkpoint; returns also descriptions."""
    left = dict(tensors)
    found: Counter[str] = Counter()
    for name in tensors:
        place, kind = _place_and_kind(name)
        if kind and place not in left and (value := _value(left, place, kind)) is not None:
            left[place] = value
            found[kind] += 1
    return left, _in_words(found)


def _in_words(found: Counter[str]) -> tuple[str, ...]:
    plural = {kind: "s" * (count > 1) for kind, count in found.items()}
    return tuple(f"{kind} of {found[kind]} weight{plural[kind]} baked in" for kind in found)


# ---------------------------------------------------------------------------- modules


def _baked_by_hooks(part: nn.Module) -> list[str]:
    kinds = []
    for hook in list(part._forward_pre_hooks.values()):
        if isinstance(hook, WeightNorm):
            remove_weight_norm(part, hook.name)
            kinds.append("weight_norm")
        elif isinstance(hook, SpectralNorm):
            remove_spectral_norm(part, hook.name)
            kinds.append("spectral_norm")
        elif isinstance(hook, prune.BasePruningMethod):
            cast(Any, prune).remove(part, hook._tensor_name)  # without types
            kinds.append("pruning")
    return kinds


def _baked_parametrizations(part: nn.Module) -> list[str]:
    # remove_parametrizations is not used: it deletes properties of a class that copies of the
    # module share, and so it would break the user's module.
    lists = cast(nn.ModuleDict, part.parametrizations)
    values = {name: getattr(part, name).detach().clone() for name in lists}
    kinds = [_kind(lists[name]) for name in lists]
    part.__class__ = parametrize.type_before_parametrizations(part)
    del part.parametrizations
    for name, value in values.items():
        part.register_parameter(name, nn.Parameter(value, requires_grad=False))
    return kinds


def _kind(chain: Any) -> str:
    names = {"_WeightNorm": "weight_norm", "_SpectralNorm": "spectral_norm"}
    return "+".join(names.get(type(one).__name__, type(one).__name__) for one in chain)


def _detach(part: nn.Module) -> None:
    for name, buffer in part._buffers.items():
        if buffer is not None and not buffer.is_leaf:
            part._buffers[name] = buffer.detach()
    for parameter in part._parameters.values():
        if parameter is not None:
            parameter.requires_grad_(False)


# ------------------------------------------------------------------------- checkpoints


def _place_and_kind(name: str) -> tuple[str, str]:
    """The weight that a tensor is part of, and the kind; ``""`` for a plain weight."""
    if _PARAMETRIZED in name:
        layer, _, rest = name.partition(_PARAMETRIZED)
        weight, _, part = rest.partition(".")
        kind = {"original0": "weight_norm", "original": "spectral_norm"}.get(part, "")
        return f"{layer}.{weight}", kind
    for ending, kind in (("_mask", "pruning"), ("_u", "spectral_norm"), ("_g", "weight_norm")):
        if name.endswith(ending):
            return name.removesuffix(ending), kind
    return name, ""


def _value(left: dict[str, Tensor], place: str, kind: str) -> Tensor | None:
    """The value of a computed weight, whose parts are removed; ``None`` if a part is missing."""
    layer, _, weight = place.rpartition(".")
    new = f"{layer}{_PARAMETRIZED}{weight}" if layer else ""
    if kind == "pruning":
        parts = _take(left, f"{place}_orig", f"{place}_mask")
        return None if parts is None else parts[0] * parts[1]
    if kind == "weight_norm":
        parts = _take(left, f"{place}_g", f"{place}_v") or _take(
            left, f"{new}.original0", f"{new}.original1"
        )
        return None if parts is None else _weight_norm(*parts)
    parts = _take(left, f"{place}_orig", f"{place}_u", f"{place}_v") or _take(
        left, f"{new}.original", f"{new}.0._u", f"{new}.0._v"
    )
    return None if parts is None else _spectral_norm(*parts)


def _take(left: dict[str, Tensor], *names: str) -> list[Tensor] | None:
    return [left.pop(name) for name in names] if all(name in left for name in names) else None


def _weight_norm(length: Tensor, direction: Tensor) -> Tensor:
    kept = [axis for axis, size in enumerate(length.shape) if size > 1]
    dim = kept[0] if kept else (0 if length.dim() else -1)
    return torch._weight_norm(direction, length, dim)


def _spectral_norm(original: Tensor, u: Tensor, v: Tensor) -> Tensor:
    axis = 0 if original.shape[0] == len(u) else 1
    matrix = original.movedim(axis, 0).reshape(len(u), -1)
    return original / torch.dot(u, torch.mv(matrix, v))
