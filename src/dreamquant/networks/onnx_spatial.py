"""Converts ONNX operators that pool, pad and scale images to PyTorch functions."""

from __future__ import annotations

import math
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from dreamquant.networks.onnx_layers import (
    Built,
    Function,
    Node,
    UnsupportedError,
    pads_of,
    same_padding,
    torch_pads,
    whole_numbers,
)

_POOLS: dict[tuple[str, int], Function] = {
    ("Max", 1): F.max_pool1d,
    ("Max", 2): F.max_pool2d,
    ("Max", 3): F.max_pool3d,
    ("Average", 1): F.avg_pool1d,
    ("Average", 2): F.avg_pool2d,
    ("Average", 3): F.avg_pool3d,
}


def pool(node: Node) -> Built:
    """MaxPool and AveragePool."""
    kernel = whole_numbers(node.get("kernel_shape"))
    dims = len(kernel)
    stride, dilation = (
        whole_numbers(node.get(name, [1] * dims)) for name in ("strides", "dilations")
    )
    pads = pads_of(node, dims)
    largest = node.kind == "MaxPool"
    pool = _POOLS["Max" if largest else "Average", dims]
    options: dict[str, Any] = {"stride": stride, "ceil_mode": bool(node.get("ceil_mode", 0))}
    if node.outputs > 1 or (not largest and set(dilation) != {1}):
        raise UnsupportedError("it returns indices, or is an average with dilation")
    options |= {"dilation": dilation} if largest else {}
    if (
        pads is not None
        and pads[:dims] == pads[dims:]
        and all(2 * pad <= size for pad, size in zip(pads, kernel, strict=False))
    ):
        counted = {} if largest else {"count_include_pad": bool(node.get("count_include_pad", 0))}
        return Built(lambda x: pool(x, kernel, padding=pads[:dims], **options, **counted))
    if not largest and not node.get("count_include_pad", 0):
        raise UnsupportedError("its padding differs between the sides and is not counted")
    value = -math.inf if largest else 0.0
    same = same_padding(node, kernel, stride, dilation)
    if pads is None:
        return Built(lambda x: pool(same(x, value), kernel, **options))
    return Built(lambda x: pool(F.pad(x, torch_pads(pads), value=value), kernel, **options))


def pad(node: Node) -> Built:
    """Pad."""
    pads, value = node.whole(1, "pads"), node.get("value", 0.0)
    if pads is None or node.constant(3) is not None:
        raise UnsupportedError("its padding depends on the size, or it pads selected axes")
    if (given := node.constant(2)) is not None:
        value = float(given)
    mode = {"edge": "replicate"}.get(node.get("mode", "constant"), node.get("mode", "constant"))
    sides = torch_pads(pads)
    if mode == "constant":
        return Built(lambda x: F.pad(x, sides, value=value))
    return Built(lambda x: F.pad(x, sides[: 2 * (x.dim() - 2)], mode=mode))


def resize(node: Node) -> Built:
    """Resize and Upsample."""
    last = 1 if node.kind == "Upsample" or node.opset < 11 else 2
    scales = node.constant(last) if "scales" not in node.attributes else node.get("scales")
    sizes = node.constant(3)
    mode, where = node.get("mode", "nearest"), node.get("coordinate_transformation_mode", "")
    if mode not in ("nearest", "linear"):
        raise UnsupportedError(f"mode {mode}")
    if node.kind == "Resize" and mode == "linear" and where == "asymmetric":
        raise UnsupportedError("it is linear with asymmetric coordinates")
    options: dict[str, Any] = {"mode": mode}
    if mode == "linear":
        options = {"align_corners": where == "align_corners"}
    if sizes is not None and sizes.size:
        options["size"] = [int(one) for one in sizes[2:]]
    elif scales is not None:
        options["scale_factor"] = [float(one) for one in list(scales)[2:]]
    linear = {3: "linear", 4: "bilinear", 5: "trilinear"}

    def resize(x: Tensor) -> Tensor:
        return F.interpolate(x, **({"mode": linear[x.dim()]} | options))

    return Built(resize)


def depth_to_space(node: Node) -> Built:
    """DepthToSpace."""
    if node.get("mode", "DCR") != "CRD":
        raise UnsupportedError("its mode is DCR, only CRD is supported")
    return Built(lambda x: F.pixel_shuffle(x, node.get("blocksize")))
