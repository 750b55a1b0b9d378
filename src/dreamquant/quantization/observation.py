"""Observes which products of a forward pass read quantized tensors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from dreamquant.networks.products import factors
from dreamquant.quantization.multiplications import counting_multiplications
from dreamquant.quantization.quantizers import ActivationQuantizer
from dreamquant.quantization.student import Student

# Besides products, an integer processor computes these in float. Batch norms are folded.
_FLOAT_FUNCTIONS = frozenset({"group_norm", "instance_norm", "layer_norm", "rms_norm", "softmax"})
_SAMPLED = 256  # number of values that are tested to find out whether a tensor lies on a grid


@dataclass
class Product:
    """The observed inputs of a layer's products, over all of its calls.

    Attributes:
        multiplications: number for all images.
        input_on_grid: whether all inputs are quantized.
        weight_on_grid: whether the other factor is the quantized weight itself.
    """

    multiplications: int = 0
    input_on_grid: bool = True
    weight_on_grid: bool = True


@dataclass
class Seen:
    """The observations of a forward pass.

    Attributes:
        layers: products of quantized layers by name, in the order first run.
        others: names of products outside layers that have an operand on no grid.
        other_multiplications: number of multiplications of these products.
        functions: names of calls of normalisations and similar functions.
        arguments: identities of all tensors that any call reads.
    """

    layers: dict[str, Product] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)
    other_multiplications: int = 0
    functions: list[str] = field(default_factory=list)
    arguments: set[int] = field(default_factory=set)


class Products(TorchFunctionMode):
    """Sees every call that multiplies, however it is spelled: by what it adds to the count.

    Whether a tensor is quantized is read off its values: rounding it again, as one of the
    quantizers that have run does, changes nothing. Pooling by maxima, reshaping and padding keep a
    tensor on its grid; means, sums and concatenations do not.

    Args:
        student: its ranges set; the mode is to be entered within :meth:`watching`.

    Attributes:
        seen: so far.
    """

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.student = student
        self.layers = student.quantized_layers()
        # Those that have run, in order, each with what it gave last.
        self.quantizers: dict[ActivationQuantizer, Tensor] = {}
        self.weights: list[Tensor] = []
        self.within: list[tuple[str, nn.Module]] = []
        self.seen = Seen()
        self.attributed = 0
        self.count: Any = None

    @contextmanager
    def watching(self) -> Iterator[Any]:
        """Observe which modules and quantizers run; yields the count so far."""
        handles = []
        for name, module in self.student.network.named_modules():
            if isinstance(module, torch.jit.ScriptModule):
                continue  # accepts no hooks; its products are observed nevertheless
            at = name, module
            handles.append(module.register_forward_pre_hook(lambda *_, at=at: self._enter(at)))
            handles.append(module.register_forward_hook(lambda *_: self._leave()))
        for quantizer in self.student.activation_quantizers().values():
            handles.append(quantizer.register_forward_hook(lambda *a: self._ran(a[0], a[2])))
        for weight in self.student.quantized_weights().values():
            made = weight.quantizer.register_forward_hook(lambda *a: self.weights.append(a[2]))
            handles.append(made)
        try:
            with counting_multiplications() as self.count:
                yield self.count
                self._note_unseen(self.count() - self.attributed)
        finally:
            for handle in handles:
                handle.remove()

    def _enter(self, at: tuple[str, nn.Module]) -> None:
        self.within.append(at)
        if at[0] in self.layers:
            self.seen.layers.setdefault(at[0], Product())

    def _leave(self) -> None:
        self.within.pop()

    def _ran(self, quantizer: ActivationQuantizer, given: Tensor) -> None:
        self.quantizers.pop(quantizer, None)
        self.quantizers[quantizer] = given  # the latest quantizer is the most likely one

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run ``func``; if it multiplies, note what."""
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in _FLOAT_FUNCTIONS:
            self.seen.functions.append(name)
        before = self.count()
        result = func(*args, **kwargs)
        self.seen.arguments.update(map(id, tree_leaves((args, kwargs))))
        if multiplications := self.count() - before:
            self.attributed += multiplications
            self._note(func, factors(func, args, kwargs), multiplications)
        return result

    def _note(
        self, func: Any, operands: tuple[Tensor, Tensor] | None, multiplications: int
    ) -> None:
        within, module = self.within[-1] if self.within else ("", self.student.network)
        if within in self.layers and operands is not None:
            product = self.seen.layers[within]
            product.multiplications += multiplications
            product.input_on_grid &= self._on_grid(operands[0])
            product.weight_on_grid &= self._is_weight(operands[1])
        elif operands is None or not all(self._is_weight(x) or self._on_grid(x) for x in operands):
            own = operands is None and any(True for _ in module.parameters(recurse=False))
            what = f"{kind_of(module)} {within}" if own else f"{func.__name__} of computed tensors"
            self.seen.others.append(what)
            self.seen.other_multiplications += multiplications

    def _note_unseen(self, multiplications: int) -> None:
        """Record products that no Python call computed: TorchScript computed them."""
        if multiplications:
            modules = self.student.network.named_modules()
            scripted = [name for name, m in modules if isinstance(m, torch.jit.ScriptModule)]
            self.seen.others.append(f"TorchScript {', '.join(scripted[:1])}")
            self.seen.other_multiplications += multiplications

    def _is_weight(self, x: Tensor) -> bool:
        return any(x is weight or x._base is weight for weight in self.weights)

    def _on_grid(self, x: Tensor) -> bool:
        flat = x.reshape(-1)
        few = flat[:: max(1, len(flat) // _SAMPLED)]
        latest = reversed(self.quantizers.items())
        return any(quantizer.on_grid(few, given) for quantizer, given in latest)


def kind_of(module: nn.Module) -> str:
    """The class of a module, without the class that parametrization puts in its place."""
    own = type(module)
    return own.__bases__[0].__name__ if is_parametrized(module) else own.__name__
