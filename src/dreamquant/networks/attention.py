"""Attention split into its parts, so that each part can be observed or quantized."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dreamquant.errors import NetworkError


def dot_product_attention(
    operands: Sequence[Callable[[Tensor], Tensor]],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Scaled dot-product attention whose operands pass through given functions.

    Args:
        operands: functions of queries, keys, values and probabilities, for example quantizers.
        query: (..., L, E).
        key: (..., S, E).
        value: (..., S, V).
        attn_mask: bool: True where attention is allowed. Float: added to the scores. It is
            broadcast to (..., L, S).
        dropout_p: dropout rate of the probabilities.
        is_causal: each query attends to earlier keys only.
        scale: factor of the scores; ``1 / sqrt(E)`` if ``None``.
        enable_gqa: several query heads share one key head.

    Returns:
        (..., L, V).
    """
    if enable_gqa:
        heads = query.size(-3) // key.size(-3)
        key, value = (x.repeat_interleave(heads, -3) for x in (key, value))
    scale = 1 / math.sqrt(query.size(-1)) if scale is None else scale
    scores = operands[0](query) @ operands[1](key).transpose(-2, -1) * scale
    if is_causal:
        ones = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device)
        scores = scores.masked_fill(~ones.tril(), -math.inf)
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attn_mask, -math.inf)
    elif attn_mask is not None:
        scores = scores + attn_mask
    probabilities = F.dropout(scores.softmax(-1), dropout_p)
    return operands[3](probabilities) @ operands[2](value)


class SplitAttention(nn.Module):
    """The computation of ``nn.MultiheadAttention`` in eval mode, with a layer for each projection.

    ``in_proj`` computes queries, keys and values together. If their widths differ, ``q_proj``,
    ``k_proj`` and ``v_proj`` compute them. ``out_proj`` follows the attention.

    Args:
        original: the module whose parameters it uses.

    Raises:
        NetworkError: the original adds an extra key (``add_bias_kv``, ``add_zero_attn``).
    """

    in_proj_bias = None  # so that nn.TransformerEncoderLayer calls this module

    def __init__(self, original: nn.MultiheadAttention) -> None:
        super().__init__()
        if original.bias_k is not None or original.add_zero_attn:
            raise NetworkError(
                "nn.MultiheadAttention with add_bias_kv or add_zero_attn cannot be split into its "
                "products",
                where="--placement operands",
                remedy="use --placement layer-input, which leaves it in float and says so",
            )
        self.heads, self.batch_first = original.num_heads, original.batch_first
        bias = original.in_proj_bias
        if original.in_proj_weight is not None:
            self.in_proj: nn.Linear | None = _linear(original.in_proj_weight, bias)
        else:
            self.in_proj = None
            biases = (None,) * 3 if bias is None else bias.chunk(3)
            names = ("q_proj", "k_proj", "v_proj")
            for name, part in zip(names, biases, strict=True):
                self.add_module(name, _linear(getattr(original, f"{name}_weight"), part))
        self.out_proj = _linear(original.out_proj.weight, original.out_proj.bias)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Like :class:`torch.nn.MultiheadAttention`, but the returned weights are ``None``."""
        batched = query.dim() == 3
        inputs = [x if batched else x.unsqueeze(0) for x in (query, key, value)]
        if batched and not self.batch_first:
            inputs = [x.transpose(0, 1) for x in inputs]
        q, k, v = (self._by_head(x) for x in self._projected(inputs, same=query is key is value))
        mask = self._mask(attn_mask, key_padding_mask, q)
        x = F.scaled_dot_product_attention(q, k, v, mask)
        x = self.out_proj(x.transpose(1, 2).flatten(2))
        if not batched:
            return x.squeeze(0), None
        return (x if self.batch_first else x.transpose(0, 1)), None

    def _projected(self, inputs: list[Tensor], *, same: bool) -> list[Tensor]:
        if self.in_proj is None:
            names = ("q_proj", "k_proj", "v_proj")
            return [self.get_submodule(n)(x) for n, x in zip(names, inputs, strict=True)]
        if same:
            return list(self.in_proj(inputs[0]).chunk(3, -1))
        return [self.in_proj(x).chunk(3, -1)[i] for i, x in enumerate(inputs)]

    def _by_head(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # type: ignore[no-untyped-call,no-any-return]

    def _mask(self, mask: Tensor | None, padding: Tensor | None, q: Tensor) -> Tensor | None:
        """Values to add to scores (B, heads, L, S); a bool mask is True where attention is off."""
        added = [_added(mask, q)] if mask is not None else []
        if mask is not None and mask.dim() == 3:
            added = [added[0].view(-1, self.heads, *mask.shape[1:])]
        if padding is not None:
            added.append(_added(padding, q)[..., None, None, :].view(len(q), 1, 1, -1))
        return sum(added[1:], start=added[0]) if added else None


def split_attention(network: nn.Module) -> nn.Module:
    """Replace each ``nn.MultiheadAttention`` in ``network`` by its parts, in place."""
    for parent, name, child in _whole(network):
        setattr(parent, name, SplitAttention(child).train(child.training))
    return network


@contextmanager
def attention_in_parts(network: nn.Module) -> Iterator[None]:
    """Run each ``nn.MultiheadAttention`` as its parts for a while; gradients flow as before."""
    whole = _whole(network)
    try:
        split_attention(network)
        yield
    finally:
        for parent, name, child in whole:
            setattr(parent, name, child)


def _whole(network: nn.Module) -> list[tuple[nn.Module, str, nn.MultiheadAttention]]:
    return [
        (parent, name, child)
        for parent in network.modules()
        for name, child in parent.named_children()
        if isinstance(child, nn.MultiheadAttention)
    ]


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    outputs, inputs = weight.shape
    layer = nn.Linear(inputs, outputs, bias=bias is not None, device="meta")
    layer.weight = _parameter(weight)
    if bias is not None:
        layer.bias = _parameter(bias)
    return layer


def _parameter(x: Tensor) -> nn.Parameter:
    return x if isinstance(x, nn.Parameter) else nn.Parameter(x.detach().clone())


def _added(mask: Tensor, q: Tensor) -> Tensor:
    if mask.dtype != torch.bool:
        return mask.to(q.dtype)
    return torch.zeros_like(mask, dtype=q.dtype).masked_fill(mask, float("-inf"))
