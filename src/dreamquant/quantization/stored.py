"""Tensors that hardware stores between layers: what several operations read is quantized once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from dreamquant.errors import NetworkError
from dreamquant.networks.relu_maps import is_relu
from dreamquant.networks.values import Value, value_of
from dreamquant.quantization.outputs import in_place_reads
from dreamquant.quantization.quantizers import LAYER_WEIGHT

# By name, since PyTorch passes the same operation to modes as several functions.
_SUMS = frozenset({"add", "__add__"})
_SUMS_IN_PLACE = frozenset({"add_", "__iadd__"})
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
_SPLITS = frozenset({"chunk", "split", "tensor_split"})


def layer_input(x: Tensor) -> Tensor:
    """``x``, where a quantized layer reads it; a mode may give what is stored of it instead."""
    # It changes nothing, but modes see it, under torch.compile too: that passes them PyTorch's
    # own functions alone.
    return torch.positive(x)


class _Reads(TorchFunctionMode, ABC):
    """Passes whatever layers, batch norms, ReLUs and joins read through ``read``."""

    @abstractmethod
    def read(self, x: Tensor, *, joins: bool, overwritten: bool = False) -> Tensor:
        """What the operation gets in place of ``x``."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.positive:
            return self.read(args[0], joins=False)
        name = getattr(func, "__name__", "")
        if name in _SUMS and len(args) == 2 and all(map(_is_map, args)):
            args = tuple(self.read(x, joins=True) for x in args)
        elif name in _SUMS_IN_PLACE and len(args) == 2 and all(map(_is_map, args)):
            total = self.read(args[0], joins=True, overwritten=True)
            return args[0].copy_(torch.add(total, self.read(args[1], joins=True)))
        elif name in _CONCATENATIONS and args and all(map(_is_map, args[0])):
            args = ([self.read(x, joins=True) for x in args[0]], *args[1:])
        elif name in _POOLINGS | _SPLITS and args and _is_map(args[0]):
            args = (self.read(args[0], joins=True), *args[1:])
        elif name == "batch_norm" and _is_map(args[0]):
            args = (self.read(args[0], joins=False), *args[1:])
        elif _is_relu_of_map(func, args, kwargs):
            return self.rectify(func, args, kwargs)
        return func(*args, **kwargs)

    def rectify(self, func: Any, args: Any, kwargs: Any) -> Tensor:
        """A ReLU of what it gets in place of its argument."""
        own = self.read(args[0], joins=False)
        # In place, it must not write into what others read.
        own = own if own is args[0] else own.clone()
        result: Tensor = func(own, *args[1:], **kwargs)
        return result


def _is_map(x: Any) -> bool:
    """Whether something is a computed feature map; not zero-points, which are integers.

    Nor the weight of a layer, which is a parameter of the teacher and computed in the student.
    """
    computed = isinstance(x, Tensor) and not isinstance(x, nn.Parameter)
    computed = computed and not hasattr(x, LAYER_WEIGHT)
    return computed and x.dim() > 2 and x.is_floating_point()


def _is_relu_of_map(func: Any, args: Any, kwargs: Any) -> bool:
    return is_relu(func, args, kwargs) and bool(args) and _is_map(args[0])


class Survey(NamedTuple):
    """What one forward pass reads.

    Attributes:
        reads: for each read in the order executed, which stored tensor it is of; ``None`` where
            one layer alone reads the tensor, which it then quantizes for itself.
        norms: names of batch norms, each with the one layer whose result it reads.
        written: for each ReLU of a feature map, whether it is in place and its argument read later.
    """

    reads: tuple[int | None, ...]
    norms: dict[str, str]
    written: tuple[bool, ...]

    @property
    def stored(self) -> int:
        """How many tensors are stored."""
        return len(set(self.reads) - {None})


class _Survey(_Reads):
    def __init__(self) -> None:
        super().__init__()
        self.kept: list[Tensor] = []  # so that no id is given twice
        self.keys: list[Value] = []
        self.joined: set[Value] = set()

    def read(self, x: Tensor, *, joins: bool, overwritten: bool = False) -> Tensor:
        self.kept.append(x)
        self.keys.append(value_of(x))
        if joins:
            self.joined.add(value_of(x))
        return x

    def stored(self) -> dict[Value, int]:
        """A number for each tensor that is to be stored."""
        times = Counter(self.keys)
        keys = [key for key in times if key in self.joined or times[key] > 1]
        return {key: number for number, key in enumerate(keys)}


@torch.no_grad()
def survey(network: nn.Module, layers: Sequence[str], example: Tensor) -> Survey:
    """Find what a network's quantized layers, sums, concatenations and poolings read.

    Args:
        network: in eval mode.
        layers: names of those to be quantized.
        example: normalised images (B, C, H, W).
    """
    mode = _Survey()
    with _following(network, layers) as (results, norms), mode:
        network(example)
    stored = mode.stored()
    followed = {norm: {results.get(key, "") for key in keys} for norm, keys in norms.items()}
    return Survey(
        reads=tuple(stored.get(key) for key in mode.keys),
        norms={
            norm: "".join(before)
            for norm, before in followed.items()
            if len(before) == 1 and "" not in before and not stored.keys() & norms[norm]
        },
        written=in_place_reads(network, example, _is_relu_of_map),
    )


@contextmanager
def _following(
    network: nn.Module, layers: Sequence[str]
) -> Iterator[tuple[dict[Value, str], dict[str, set[Value]]]]:
    """Which layer each tensor is the result of, and what each batch norm reads."""
    results: dict[Value, str] = {}
    norms: dict[str, set[Value]] = {}
    kept: list[Tensor] = []

    def before(_: nn.Module, inputs: tuple[Any, ...], keywords: Mapping[str, Any]) -> None:
        layer_input(inputs[0] if inputs else keywords["input"])

    def after(name: str, result: Tensor) -> None:
        kept.append(result)
        results[value_of(result)] = name

    def normalise(name: str, x: Tensor) -> None:
        norms.setdefault(name, set()).add(value_of(x))

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
        yield results, norms
    finally:
        for handle in handles:
            handle.remove()


class StoredTensors(_Reads):
    """Quantizes what is stored, when it is first read; later reads get the same tensor.

    Args:
        quantizers: one per stored tensor.
        survey: of the network.

    Raises:
        NetworkError: the forward pass reads other tensors than the one that was surveyed.
    """

    def __init__(self, quantizers: nn.ModuleList, survey: Survey) -> None:
        super().__init__()
        self.quantizers, self.reads, self.written = quantizers, survey.reads, survey.written
        self.count = self.relus = 0
        self.stored: dict[int, Tensor] = {}

    def read(self, x: Tensor, *, joins: bool, overwritten: bool = False) -> Tensor:
        """What is stored of ``x``, or ``x`` itself."""
        if self.count == len(self.reads):
            raise self._miscounted()
        index = self.reads[self.count]
        self.count += 1
        if index is None:
            return x
        if index not in self.stored:
            # Its quantizer may need what it saw for the gradient.
            self.stored[index] = self.quantizers[index](x.clone() if overwritten else x)
        if self.stored[index].shape != x.shape:
            raise self._miscounted()
        return self.stored[index]

    def rectify(self, func: Any, args: Any, kwargs: Any) -> Tensor:
        """A ReLU; one in place, as a statement, leaves its result in its argument."""
        # More ReLUs than surveyed read more tensors, too, which is an error.
        written = self.written[self.relus : self.relus + 1] == (True,)
        self.relus += 1
        if not written:
            return super().rectify(func, args, kwargs)
        x: Tensor = args[0]
        # What follows overwrites what its quantizer may need for the gradient.
        own = self.read(x, joins=False, overwritten=True)
        return x.copy_(func(own.clone(), *args[1:], **kwargs))

    def __exit__(self, *exception: Any) -> None:
        """Check that everything was read."""
        super().__exit__(*exception)  # type: ignore[no-untyped-call]
        self.stored.clear()
        if exception[0] is None and self.count != len(self.reads):
            raise self._miscounted()

    def _miscounted(self) -> NetworkError:
        return NetworkError(
            f"a forward pass read another number of tensors than the {len(self.reads)} surveyed",
            where="--elementwise",
            remedy="for networks whose forward pass varies, leave --elementwise out and give "
            "--scheme paper --placement layer-input",
        )
