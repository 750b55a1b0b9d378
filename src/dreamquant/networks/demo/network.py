"""The demo network: a deep, narrow residual network for 8 x 8 grey digits.

At 3 bits and without recovery it loses a third of its accuracy; a shallower, wider network loses
only 2 %. So the demo can show what recovery does.
"""

from __future__ import annotations

from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions with a shortcut, which is projected if the shape changes.

    Args:
        inputs: number of input channels.
        outputs: number of output channels.
        stride: stride of the first convolution and of the projection.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if inputs != outputs or stride != 1:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )
        self.relu2 = nn.ReLU()

    def forward(self, features: Tensor) -> Tensor:
        """Map (N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        residual = self.relu1(self.bn1(self.conv1(features)))
        residual = self.bn2(self.conv2(residual))
        out: Tensor = self.relu2(residual + self.shortcut(features))
        return out


def stage(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """Return five residual blocks; the first one changes channels and resolution."""
    return nn.Sequential(
        ResidualBlock(inputs, outputs, stride),
        *(ResidualBlock(outputs, outputs) for _ in range(4)),
    )


def digits() -> nn.Module:
    """Build the network with random weights; ``dreamquant.networks.demo.WEIGHTS`` has trained ones.

    Returns:
        A network from normalised images (N, 1, 8, 8) to logits (N, 10).
    """
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        stage(8, 8, stride=1),
        stage(8, 16, stride=2),
        stage(16, 32, stride=2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 10),
    )
