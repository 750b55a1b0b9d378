"""Tensors that hardware stores between layers: what several operations read is quantized once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode, handle_torch_function, has_torch_function

from dreamquant.errors import NetworkError

# By name, since PyTorch passes the same operation to modes as several functions. `add_` is left
# out: it writes into its operand, which may be read again.
_SUMS = frozenset({"add", "__add__", "__iadd__"})
_CONCATENATIONS = frozenset({"cat", "concat", "concatenate"})
_POOLINGS = frozenset(
    {
        "avg_pool1d",
        "avg_pool2d",
        "avg_pool3d",
        "adaptive_avg_pool1d",
        "adaptive_avg_pool2d",
        "adaptive_avg_pool3d",
        "max_pool1d",
        "max_pool2d",
        "max_pool3d",
        "adaptive_max_pool1d",
        "adaptive_max_pool2d",
        "adaptive_max_pool3d",
        "mean",
    }
)


def layer_input(x: Tensor) -> Tensor:
    """``x``, where a quantized layer reads it; a mode may give what is stored of it instead."""
    if has_torch_function((x,)):
        result: Tensor = handle_torch_function(layer_input, (x,), x)
        return result
    return x


class _Reads(TorchFunctionMode):
    """Passes whatever layers, sums, concatenations and poolings read through ``read``."""

    def read(self, x: Tensor, *, joins: bool) -> Tensor:
        raise NotImplementedError

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is layer_input:
            return self.read(args[0], joins=False)
        name = getattr(func, "__name__", "")
        if name in _SUMS and not kwargs and len(args) == 2 and all(map(_is_map, args)):
            # Not in place: what is stored may be read again.
            return torch.add(*(self.read(x, joins=True) for x in args))
        if name in _CONCATENATIONS and args and all(map(_is_map, args[0])):
            args = ([self.read(x, joins=True) for x in args[0]], *args[1:])
        elif name in _POOLINGS and args and _is_map(args[0]):
            args = (self.read(args[0], joins=True), *args[1:])
        return func(*args, **kwargs)


def _is_map(x: Any) -> bool:
    """Whether something is a computed feature map."""
    return isinstance(x, Tensor) and not isinstance(x, nn.Parameter) and x.dim() > 2


class Survey(NamedTuple):
    """What one forward pass reads.

    Attributes:
        reads: for each read in the order executed, which stored tensor it is of; ``None`` where
            one layer alone reads the tensor, which it then quantizes for itself.
        norms: names of batch norms, each with the one layer whose result it reads.
    """

    reads: tuple[int | None, ...]
    norms: dict[str, str]

    @property
    def stored(self) -> int:
        """How many tensors are stored."""
        return len(set(self.reads) - {None})


class _Survey(_Reads):
    def __init__(self) -> None:
        super().__init__()
        self.tensors: list[tuple[Tensor, int]] = []  # kept, so that no id is given twice
        self.joined: set[tuple[int, int]] = set()

    def read(self, x: Tensor, *, joins: bool) -> Tensor:
        self.tensors.append((x, x._version))
        if joins:
            self.joined.add(_key(x))
        return x

    def reads(self) -> tuple[int | None, ...]:
        keys = [(id(x), version) for x, version in self.tensors]
        stored = [key for key in dict.fromkeys(keys) if key in self.joined or keys.count(key) > 1]
        number = {key: i for i, key in enumerate(stored)}
        return tuple(number.get(key) for key in keys)


def _key(x: Tensor) -> tuple[int, int]:
    """What tells a tensor from another, and from itself after it was written to in place."""
    return id(x), x._version


@torch.no_grad()
def survey(network: nn.Module, layers: Sequence[str], example: Tensor) -> Survey:
    """Find what a network's quantized layers, sums, concatenations and poolings read.

    Args:
        network: in eval mode.
        layers: names of those to be quantized.
        example: normalised images (B, C, H, W).
    """
    mode = _Survey()
    with _following(network, layers) as norms, mode:
        network(example)
    return Survey(mode.reads(), norms)


@contextmanager
def _following(network: nn.Module, layers: Sequence[str]) -> Iterator[dict[str, str]]:
    """Note each layer's reads, and which batch norm reads its result alone."""
    made: dict[tuple[int, int], str] = {}
    kept: list[Tensor] = []
    norms: dict[str, str] = {}
    several: set[str] = set()

    def before(_: nn.Module, inputs: tuple[Any, ...], keywords: Mapping[str, Any]) -> None:
        layer_input(inputs[0] if inputs else keywords["input"])

    def after(name: str, result: Tensor) -> None:
        made[_key(result)] = name
        kept.append(result)

    def normalise(name: str, x: Tensor) -> None:
        layer = made.get(_key(x), "")
        if not layer or norms.setdefault(name, layer) != layer:
            several.add(name)

    handles = []
    for name in layers:
        module = network.get_submodule(name)
        handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
        handles.append(module.register_forward_hook(lambda *a, name=name: after(name, a[2])))
    for name, module in network.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            handles.append(
                module.register_forward_pre_hook(lambda *a, name=name: normalise(name, a[1][0]))
            )
    try:
        yield norms
    finally:
        for handle in handles:
            handle.remove()
    for name in several:
        norms.pop(name, None)


class StoredTensors(_Reads):
    """Quantizes what is stored, when it is first read; later reads get the same tensor.

    Args:
        quantizers: one per stored tensor.
        reads: see :class:`Survey`.

    Raises:
        NetworkError: the forward pass reads other tensors than the one that was surveyed.
    """

    def __init__(self, quantizers: nn.ModuleList, reads: tuple[int | None, ...]) -> None:
        super().__init__()
        self.quantizers, self.reads = quantizers, reads
        self.count = 0
        self.stored: dict[int, Tensor] = {}

    def read(self, x: Tensor, *, joins: bool) -> Tensor:
        """What is stored of ``x``, or ``x`` itself."""
        if self.count == len(self.reads):
            raise self._miscounted()
        index = self.reads[self.count]
        self.count += 1
        if index is None:
            return x
        if index not in self.stored:
            self.stored[index] = self.quantizers[index](x)
        return self.stored[index]

    def __exit__(self, *exception: Any) -> None:
        """Check that everything was read."""
        super().__exit__(*exception)  # type: ignore[no-untyped-call]
        self.stored.clear()
        if exception[0] is None and self.count != len(self.reads):
            raise self._miscounted()

    def _miscounted(self) -> NetworkError:
        return NetworkError(
            f"a forward pass read another number of tensors than the {len(self.reads)} surveyed",
            where="--joins",
            remedy="leave --joins out for networks whose forward pass varies",
        )
