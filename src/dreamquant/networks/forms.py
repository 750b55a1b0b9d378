"""Takes networks out of their wrappers, and replaces classes that act as batch norms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy

from dreamquant.errors import NetworkError

# Wrappers by class name, because some are in private modules, and the attribute with the network.
_WRAPPERS = {
    "DataParallel": "module",
    "DistributedDataParallel": "module",
    "AveragedModel": "module",
    "OptimizedModule": "_orig_mod",
    "CheckpointWrapper": "_checkpoint_wrapped_module",
}
# With the number of dimensions of the input of each class.
_NORMS = ((nn.BatchNorm2d, (2, 2)), (nn.BatchNorm1d, (2,)), (nn.BatchNorm3d, (2, 2, 2)))
_EXPORTED_REMEDY = (
    "give the Python class as FILE.py:FACTORY; its weights are in the exported program: "
    "torch.save(dict(program.state_dict), FILE), then --weights FILE"
)


class Plain(NamedTuple):
    """A module in the form that all other code expects, and descriptions of the changes."""

    module: nn.Module
    notes: tuple[str, ...]


def plain_form(module: nn.Module, name: str) -> Plain:
    """``module`` without wrappers, float32, on the CPU, in eval mode, without gradients.

    It is changed in place. Wrappers such as ``DataParallel`` and ``torch.compile`` are removed
    everywhere in the network. A module that computes the same as a batch norm, from
    ``running_mean`` and ``running_var``, is replaced by that batch norm.

    Raises:
        NetworkError: the module is TorchScript or an exported program, or has weights without
            values.
    """
    notes = []
    module, kinds = _unwrapped(module)
    if kinds:
        notes.append(f"taken out of {', '.join(kinds)}")
    require_python(module, name)
    if any(is_lazy(t) or t.is_meta for t in (*module.parameters(), *module.buffers())):
        raise NetworkError(
            f"{name} has weights without values",
            remedy="create the weights in the factory, without lazy modules or the meta device",
        )
    module = module.cpu().float().eval().requires_grad_(False)
    module, frozen = _with_batch_norms(module)
    if frozen:
        notes.append(f"{frozen} frozen batch norms used as batch norms")
    return Plain(module, tuple(notes))


def _unwrapped(module: nn.Module) -> tuple[nn.Module, list[str]]:
    kinds: list[str] = []

    def unwrap(part: nn.Module) -> nn.Module:
        while (attribute := _WRAPPERS.get(type(part).__name__)) is not None:
            inner = getattr(part, attribute, None)
            if not isinstance(inner, nn.Module):
                break
            kinds.append(_name_of(part))
            part = inner
        if getattr(part, "_compiled_call_impl", None) is not None:
            kinds.append("torch.compile")
            part._compiled_call_impl = None
        return part

    return _replaced(module, unwrap), list(dict.fromkeys(kinds))


def _name_of(wrapper: nn.Module) -> str:
    kind = type(wrapper).__name__
    return "torch.compile" if kind == "OptimizedModule" else kind


def _replaced(module: nn.Module, replace: Callable[[nn.Module], nn.Module]) -> nn.Module:
    """``module`` after ``replace`` has been applied once to it and to each of its submodules."""
    done: dict[int, nn.Module] = {}

    def visit(part: nn.Module) -> nn.Module:
        if id(part) not in done:
            done[id(part)] = new = replace(part)
            for name, child in list(new._modules.items()):
                if child is not None and (fitting := visit(child)) is not child:
                    setattr(new, name, fitting)
        return done[id(part)]

    return visit(module)


def require_python(module: nn.Module, name: str) -> None:
    """Refuse TorchScript and exported programs, which have no layers to replace.

    Raises:
        NetworkError: the module is TorchScript or an exported program.
    """
    if isinstance(module, torch.jit.ScriptModule):
        raise NetworkError(
            f"{name} is TorchScript (scripted or traced), and its layers cannot be replaced",
            remedy="give the Python class it was made from as FILE.py:FACTORY; the script contains "
            "the weights: torch.save(scripted.state_dict(), FILE), then --weights FILE",
        )
    if isinstance(module, fx.GraphModule) and any(
        isinstance(node.target, torch._ops.OpOverload) for node in module.graph.nodes
    ):
        raise exported_program(name)


def exported_program(name: str) -> NetworkError:
    """The error about a network of ``torch.export``, which has no layers."""
    return NetworkError(
        f"{name} is a torch.export program, which has operators instead of layers",
        remedy=_EXPORTED_REMEDY,
    )


def _with_batch_norms(module: nn.Module) -> tuple[nn.Module, int]:
    count = 0

    def thaw(part: nn.Module) -> nn.Module:
        nonlocal count
        norm = _as_batch_norm(part)
        count += norm is not None
        return norm or part

    return _replaced(module, thaw), count


def _as_batch_norm(part: nn.Module) -> nn.Module | None:
    """The batch norm that computes the same as ``part``; ``None`` if there is none."""
    if isinstance(part, _BatchNorm) or list(part.children()):
        return None
    names = ("running_mean", "running_var", "weight", "bias")
    given = {name: getattr(part, name, None) for name in names}
    state = {name: tensor for name, tensor in given.items() if isinstance(tensor, Tensor)}
    eps: Any = getattr(part, "eps", None)
    if not {"running_mean", "running_var"} <= state.keys() or not isinstance(eps, float):
        return None
    shapes = {tensor.shape for tensor in state.values()}
    if len(shapes) > 1 or len(state) == 3 or len(shapes.pop()) != 1:
        return None
    channels, kind = len(state["running_mean"]), state["running_mean"].dtype
    random = torch.Generator().manual_seed(0)
    for norms, size in _NORMS:
        norm = norms(channels, eps=eps, affine="weight" in state)
        norm.load_state_dict(state, strict=False)
        norm = norm.to(kind).eval().requires_grad_(False)
        if _computes(part, norm, torch.randn(3, channels, *size, generator=random)):
            return norm
    return None


def _computes(part: nn.Module, norm: nn.Module, x: Tensor) -> bool:
    try:
        with torch.no_grad():
            found = part(x)
    except Exception:  # the network's code may raise anything; then it is no batch norm
        return False
    wanted = norm(x)
    return (
        isinstance(found, Tensor)
        and found.shape == wanted.shape
        and torch.allclose(found, wanted, rtol=1e-4, atol=1e-5)
    )
