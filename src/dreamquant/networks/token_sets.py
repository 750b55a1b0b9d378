"""Where a transformer treats its tokens as a set, so that some of them can be left out.

A network adds the position to each token before its first block. If the blocks after that compare
all tokens with all others, and a class token or a mean over tokens is read at the end, the order of
the patches does not matter any more. This is observed: the patches are permuted before a module,
and the outputs stay the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dreamquant.errors import NetworkError
from dreamquant.networks.attention_taps import Attended, PatchAttention, watching
from dreamquant.networks.outputs import as_one

_RANK = 3  # images, tokens, width
_EQUAL = 1e-3  # of the largest output: sums in another order


@dataclass(frozen=True)
class TokenSet:
    """The place in a network before which tokens can be left out.

    Attributes:
        module: name of the module that takes the tokens (B, leading + patches, width).
        leading: number of tokens before the patches, such as a class token.
        patches: number of patches.
    """

    module: str
    leading: int
    patches: int

    @contextmanager
    def keeping(self, network: nn.Module, kept: Tensor) -> Iterator[None]:
        """Leave out all other patches in each forward pass.

        Args:
            network: the network.
            kept: numbers of the patches that each image keeps, (B, K), int64.
        """

        def choose(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Tensor, ...]:
            tokens = inputs[0]
            rows = kept[..., None].expand(-1, -1, tokens.shape[-1])
            patches = tokens[:, self.leading :].gather(1, rows)
            # Taps count the class tokens where the network concatenates them.
            return (torch.cat([tokens[:, : self.leading], patches], 1), *inputs[1:])

        handle = network.get_submodule(self.module).register_forward_pre_hook(choose)
        try:
            yield
        finally:
            handle.remove()

    @torch.no_grad()
    def attention(self, network: nn.Module, images: Tensor, kept: Tensor) -> Tensor:
        """The attention that each kept patch gets in the last layer, mean over heads, (B, K)."""
        tap = PatchAttention()
        with self.keeping(network, kept), tap.watch(network) as collect:
            network(images)
        return tap.value(collect())[-1].mean(1)


@torch.no_grad()
def find_token_set(network: nn.Module, images: Tensor) -> TokenSet:
    """The first place where patches can be left out.

    Args:
        network: in eval mode.
        images: a few inputs, not all alike (B, ...).

    Raises:
        NetworkError: there is none.
    """
    PatchAttention().require(network, images)
    wanted = as_one(network(images))
    for place in _places(network, images):
        order = torch.randperm(place.patches, device=images.device).expand(len(images), -1)
        fewer = order[:, : (place.patches + 1) // 2]
        permuted, shorter = (_output(network, images, place, kept) for kept in (order, fewer))
        if permuted is not None and shorter is not None and _equal(permuted, wanted):
            return place
    raise NetworkError(
        "the network reads its tokens by their places, as windows and tables of relative "
        "positions do, so none can be left out",
        where="--method",
        remedy="leave +smi out",
    )


def _output(network: nn.Module, images: Tensor, place: TokenSet, kept: Tensor) -> Tensor | None:
    """The network's output for some of the patches; ``None`` where it cannot compute one."""
    try:
        with place.keeping(network, kept):
            return as_one(network(images))
    except Exception:  # the network's code may raise anything at another number of tokens
        return None


def _equal(found: Tensor, wanted: Tensor) -> bool:
    return bool((found - wanted).abs().max() <= _EQUAL * wanted.abs().max())


class _Modules:
    """Which modules take tokens, and which contain the first attention of a forward pass."""

    def __init__(self, attended: Sequence[Attended]) -> None:
        self.attended = attended
        self.entered: Counter[str] = Counter()
        self.tokens: dict[str, int] = {}  # those that began before any attention
        self.around: set[str] = set()

    def enter(self, name: str, _: nn.Module, inputs: tuple[Any, ...]) -> None:
        self.entered[name] += 1
        # Of several tensors, such as queries and keys, all would have to be shortened alike.
        tokens = len(inputs) == 1 and isinstance(inputs[0], Tensor) and inputs[0].dim() == _RANK
        if tokens and not self.attended:
            self.tokens[name] = inputs[0].shape[1]

    def leave(self, name: str, *_: Any) -> None:
        if self.attended and name in self.tokens:
            self.around.add(name)


def _places(network: nn.Module, images: Tensor) -> list[TokenSet]:
    """Modules that run once, take tokens, and contain the first attention; outermost first."""
    with watching(network) as mode, ExitStack() as hooks:
        modules = _Modules(mode.found)
        for name, module in network.named_modules():
            if name:
                enter, leave = partial(modules.enter, name), partial(modules.leave, name)
                hooks.callback(module.register_forward_pre_hook(enter).remove)
                hooks.callback(module.register_forward_hook(leave).remove)
        network(images)
    leading = mode.found[0].leading
    return [
        TokenSet(name, leading, tokens - leading)
        for name, tokens in modules.tokens.items()
        if name in modules.around and modules.entered[name] == 1
    ]
