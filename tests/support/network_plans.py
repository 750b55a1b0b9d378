"""Random networks of the shapes that people hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from dreamquant import InputSpec

CLASSES, SIZE = 5, 8
CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
BATCH_NORMS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
MAX_POOLS = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}
MEAN_POOLS = {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d}
GLOBAL_POOLS = {1: nn.AdaptiveAvgPool1d, 2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}
ACTIVATIONS = {
    "ReLU": nn.ReLU, "ReLU6": nn.ReLU6, "LeakyReLU": nn.LeakyReLU, "PReLU": nn.PReLU,
    "SiLU": nn.SiLU, "GELU": nn.GELU, "Hardswish": nn.Hardswish, "ELU": nn.ELU, "Tanh": nn.Tanh,
}  # fmt: skip
KINDS = ("plain", "residual", "bottleneck", "branches", "depthwise", "grouped", "dilated", "wide")


@dataclass(frozen=True)
class Block:
    """One block: ``kind`` of it, its batch norm, activation, and what makes the image smaller."""

    kind: str
    norm: str
    activation: str
    smaller: str


@dataclass(frozen=True)
class Plan:
    """All that a random network is made of; two equal plans give the same network.

    Attributes:
        dimensions: of its convolutions, 1, 2 or 3.
        channels: of the input.
        width: channels within.
        blocks: in order.
        in_place: whether activations overwrite their input.
        reuse: whether all activations of one kind are one module, called again and again.
        bias: whether convolutions have one.
        head: ``pooled``, ``flat`` or ``convolution``.
        seed: of the weights.
    """

    dimensions: int
    channels: int
    width: int
    blocks: tuple[Block, ...]
    in_place: bool
    reuse: bool
    bias: bool
    head: str
    seed: int

    @property
    def input(self) -> InputSpec:
        """What the network expects: images, whatever its convolutions take."""
        high = {1: 1, 2: SIZE, 3: SIZE**2}[self.dimensions]
        shape = (self.channels, high, SIZE)
        return InputSpec(shape, (0.0,) * self.channels, (1.0,) * self.channels, CLASSES)


BLOCKS = st.builds(
    Block,
    kind=st.sampled_from(KINDS),
    norm=st.sampled_from(["batch", "batch", "group", "none"]),
    activation=st.sampled_from(sorted(ACTIVATIONS)),
    smaller=st.sampled_from(["", "", "stride", "max", "mean", "transposed"]),
)


def _shrinking(plan: Plan) -> int:
    return sum(block.smaller in ("stride", "max", "mean") for block in plan.blocks)


PLANS = st.builds(
    Plan,
    dimensions=st.sampled_from([1, 2, 2, 2, 3]),
    channels=st.sampled_from([1, 3]),
    width=st.sampled_from([4, 8, 12]),
    blocks=st.lists(BLOCKS, min_size=1, max_size=4).map(tuple),
    in_place=st.booleans(),
    reuse=st.booleans(),
    bias=st.booleans(),
    head=st.sampled_from(["pooled", "flat", "convolution"]),
    seed=st.integers(0, 2**16),
).filter(lambda plan: plan.dimensions < 3 or _shrinking(plan) < 3)  # AvgPool3d takes 3 places


class RandomNetwork(nn.Module):
    """The network of a plan, with batch norms that remember noise."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.plan = plan
        self.shared = nn.ModuleDict()
        self.stem = self._convolution(plan.channels, plan.width, 3, padding=1)
        self.blocks = nn.ModuleList(self._block(block) for block in plan.blocks)
        self.kinds = [block.kind for block in plan.blocks]
        self.head = self._head()

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, classes)."""
        x = self.stem(x.reshape(*x.shape[:2], *(SIZE,) * self.plan.dimensions))
        for kind, block in zip(self.kinds, self.blocks, strict=True):
            x = self._through(kind, block, x)
        return self.head(x).flatten(1)

    @staticmethod
    def _through(kind: str, block: Any, x: Tensor) -> Tensor:
        if kind == "branches":
            y = torch.cat([branch(x) for branch in block["branches"]], 1)
        elif kind in ("residual", "bottleneck"):
            y = x + block["body"](x)
        else:
            y = block["body"](x)
        return block["end"](y)

    def _block(self, block: Block) -> nn.ModuleDict:
        width, parts = self.plan.width, nn.ModuleDict()
        if block.kind == "branches":
            halves = [self._layer(block, width, width // 2, size) for size in (1, 3)]
            parts["branches"] = nn.ModuleList(halves)
        else:
            parts["body"] = self._body(block)
        parts["end"] = nn.Sequential(self._activation(block), *self._smaller(block))
        return parts

    def _body(self, block: Block) -> nn.Module:
        width = self.plan.width
        if block.kind == "residual":
            return nn.Sequential(
                self._layer(block, width, width, 3),
                self._activation(block),
                self._layer(block, width, width, 3),
            )
        if block.kind == "bottleneck":
            return nn.Sequential(
                self._layer(block, width, 2 * width, 1),
                self._activation(block),
                self._layer(block, 2 * width, 2 * width, 3, groups=2 * width),
                self._activation(block),
                self._layer(block, 2 * width, width, 1),
            )
        if block.kind == "depthwise":
            return nn.Sequential(
                self._layer(block, width, width, 3, groups=width),
                self._activation(block),
                self._layer(block, width, width, 1),
            )
        options = {
            "plain": {},
            "grouped": {"groups": 2},
            "dilated": {"dilation": 2, "padding": 2},
            "wide": {"size": 5, "padding": 2},
        }[block.kind]
        return self._layer(block, width, width, **({"size": 3} | options))

    def _layer(
        self, block: Block, inputs: int, outputs: int, size: int, **options: int
    ) -> nn.Module:
        padding = options.pop("padding", size // 2)
        conv = self._convolution(inputs, outputs, size, padding=padding, **options)
        if block.norm == "batch":
            return nn.Sequential(conv, BATCH_NORMS[self.plan.dimensions](outputs))
        if block.norm == "group":
            return nn.Sequential(conv, nn.GroupNorm(2, outputs))
        return conv

    def _convolution(self, inputs: int, outputs: int, size: int, **options: int) -> nn.Module:
        kind = CONVOLUTIONS[self.plan.dimensions]
        return kind(inputs, outputs, size, bias=self.plan.bias, **options)

    def _activation(self, block: Block) -> nn.Module:
        kind, name = ACTIVATIONS[block.activation], block.activation
        made = kind() if name in ("PReLU", "GELU", "Tanh") else kind(inplace=self.plan.in_place)
        if not self.plan.reuse:
            return made
        if name not in self.shared:
            self.shared[name] = made
        return self.shared[name]

    def _smaller(self, block: Block) -> list[nn.Module]:
        width, dimensions = self.plan.width, self.plan.dimensions
        if block.smaller == "stride":
            return [self._convolution(width, width, 3, stride=2, padding=1)]
        if block.smaller == "max":
            return [MAX_POOLS[dimensions](3, 2, padding=1)]
        if block.smaller == "mean":
            return [MEAN_POOLS[dimensions](3, 2, padding=1)]
        if block.smaller == "transposed":
            return [TRANSPOSED[dimensions](width, width, 2, bias=self.plan.bias)]
        return []

    def _head(self) -> nn.Sequential:
        width, pool = self.plan.width, GLOBAL_POOLS[self.plan.dimensions]
        if self.plan.head == "convolution":
            return nn.Sequential(pool(1), self._convolution(width, CLASSES, 1))
        positions = 1 if self.plan.head == "pooled" else 2**self.plan.dimensions
        return nn.Sequential(
            pool(1 if positions == 1 else 2), nn.Flatten(), nn.Linear(width * positions, CLASSES)
        )


def build(plan: Plan) -> nn.Module:
    """The network of a plan, in eval mode."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(plan.seed)
        net = RandomNetwork(plan).train()
        for _ in range(3):
            net(torch.randn(8, *plan.input.shape))
    return net.eval()
