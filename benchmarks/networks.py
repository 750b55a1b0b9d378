"""Networks of the benchmarks, written from their descriptions; their real weights are used."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class BasicBlock(nn.Module):
    """conv-BN-ReLU-conv-BN, plus a shortcut without parameters (option A of He et al., 2016)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride, self.pad = stride, (outputs - inputs) // 2

    def forward(self, x: Tensor) -> Tensor:
        """Features after the sum's ReLU."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.stride > 1:
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.pad, self.pad))
        return F.relu(out + x)


class CifarResNet(nn.Module):
    """ResNet of 6n+2 layers for 32-pixel images (He et al., 2016, section 4.2)."""

    def __init__(self, n: int, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = self._stage(n, 16, 16)
        self.layer2 = self._stage(n, 16, 32)
        self.layer3 = self._stage(n, 32, 64)
        self.linear = nn.Linear(64, classes)

    @staticmethod
    def _stage(n: int, inputs: int, outputs: int) -> nn.Sequential:
        first = BasicBlock(inputs, outputs, 1 if inputs == outputs else 2)
        return nn.Sequential(first, *(BasicBlock(outputs, outputs, 1) for _ in range(n - 1)))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, classes)."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))  # type: ignore[no-any-return]


def cifar10_resnet20() -> nn.Module:
    """ResNet-20 for CIFAR-10."""
    return CifarResNet(3, 10)


def cifar10_resnet56() -> nn.Module:
    """ResNet-56 for CIFAR-10."""
    return CifarResNet(9, 10)


def cifar100_resnet20() -> nn.Module:
    """ResNet-20 for CIFAR-100."""
    return CifarResNet(3, 100)


class SamePadding(nn.Module):
    """TensorFlow's padding of a 3x3 convolution of stride 2 on an even size: right and below."""

    def forward(self, x: Tensor) -> Tensor:
        """``x`` with one more row and column of zeros."""
        return F.pad(x, (0, 1, 0, 1))


class MobileNetV1(nn.Module):
    """MobileNetV1 (Howard et al., 2017) as Keras has it, with TensorFlow's padding.

    Args:
        widths: of the first convolution and of the thirteen pointwise ones.
        strides: of the thirteen depthwise ones.
        classes: how many.
    """

    def __init__(self, widths: tuple[int, ...], strides: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.strides = strides
        self.pad = SamePadding()
        self.conv1 = nn.Conv2d(3, widths[0], 3, 2, bias=False)
        self.conv1_bn = nn.BatchNorm2d(widths[0], eps=1e-3)
        self.conv1_relu = nn.ReLU6()
        for k, stride in enumerate(strides, 1):
            inputs, outputs = widths[k - 1], widths[k]
            depthwise = nn.Conv2d(
                inputs, inputs, 3, stride, padding=2 - stride, groups=inputs, bias=False
            )
            self.add_module(f"conv_dw_{k}", depthwise)
            self.add_module(f"conv_dw_{k}_bn", nn.BatchNorm2d(inputs, eps=1e-3))
            self.add_module(f"conv_dw_{k}_relu", nn.ReLU6())
            self.add_module(f"conv_pw_{k}", nn.Conv2d(inputs, outputs, 1, bias=False))
            self.add_module(f"conv_pw_{k}_bn", nn.BatchNorm2d(outputs, eps=1e-3))
            self.add_module(f"conv_pw_{k}_relu", nn.ReLU6())
        self.conv_preds = nn.Conv2d(widths[-1], classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, classes)."""
        x = self._layer("conv1", self.pad(x))
        for k, stride in enumerate(self.strides, 1):
            x = self._layer(f"conv_dw_{k}", x if stride == 1 else self.pad(x))
            x = self._layer(f"conv_pw_{k}", x)
        y: Tensor = self.conv_preds(F.adaptive_avg_pool2d(x, 1))
        return y.flatten(1)

    def _layer(self, name: str, x: Tensor) -> Tensor:
        for part in (name, f"{name}_bn", f"{name}_relu"):
            x = self.get_submodule(part)(x)
        return x


def mobilenet_v1_075() -> nn.Module:
    """MobileNetV1 of width 0.75 for ImageNet; its input is ``x / 127.5 - 1`` of RGB pixels."""
    widths = (24, 48, 96, 96, 192, 192, 384, 384, 384, 384, 384, 384, 768, 768)
    return MobileNetV1(widths, (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1), 1000)
