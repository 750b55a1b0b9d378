"""Small image transformers: pre-norm blocks, a class token, no batch norm."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Attention(nn.Module):
    """Scaled dot-product attention between all tokens, with one layer for q, k and v.

    Args:
        width: width of a token.
        heads: number of heads.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (N, T, width) to the same shape."""
        batch, count, width = tokens.shape
        split = self.qkv(tokens).view(batch, count, 3, self.heads, width // self.heads)
        q, k, v = split.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.proj(mixed.transpose(1, 2).reshape(batch, count, width))
        return out


class Block(nn.Module):
    """Attention and two linear layers, each with a shortcut.

    Args:
        width: width of a token.
        heads: number of attention heads.
        hidden: width between the two linear layers.
    """

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (N, T, width) to the same shape."""
        tokens = tokens + self.attention(self.norm1(tokens))
        out: Tensor = tokens + self.fc2(self.act(self.fc1(self.norm2(tokens))))
        return out


class Transformer(nn.Module):
    """A vision transformer: patches become tokens, and the class token is classified.

    Args:
        embed: maps images (N, C, H, W) to (N, width, h, w), one token for each position.
        tokens: h · w.
        width: width of a token.
        depth: number of blocks.
        heads: number of attention heads.
        classes: number of outputs.
        ratio: hidden width of a block, divided by ``width``.
    """

    def __init__(
        self,
        embed: nn.Module,
        tokens: int,
        width: int,
        depth: int,
        heads: int,
        classes: int = 10,
        ratio: int = 2,
    ) -> None:
        super().__init__()
        self.embed = embed
        self.cls = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(0.02 * torch.randn(1, tokens + 1, width))
        self.blocks = nn.Sequential(*(Block(width, heads, ratio * width) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images (N, C, H, W) to logits (N, classes)."""
        patches = self.embed(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls.expand(patches.shape[0], -1, -1), patches], 1) + self.position
        out: Tensor = self.head(self.norm(self.blocks(tokens)[:, 0]))
        return out


def digits() -> nn.Module:
    """Build the transformer for 8 x 8 grey digits: 16 patches of 2 x 2 pixels, six blocks.

    Returns:
        A network from normalised images (N, 1, 8, 8) to logits (N, 10), with random weights;
        ``dreamquant.networks.demo.TRANSFORMER_WEIGHTS`` has trained ones.
    """
    return Transformer(nn.Conv2d(1, 32, 2, stride=2), 16, width=32, depth=6, heads=4)
