"""Adaptive average pools whose bins are unequal: small in the file, and correct."""

from __future__ import annotations

from math import prod

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dreamquant.export.pools import PlainPools
from dreamquant.networks.spec import InputSpec
from dreamquant.quantization.convert import quantize_network
from dreamquant.quantization.scheme import Bits, Scheme

MANIFEST = {"coverage": {"layers": []}, "method": {"name": "none"}, "protocol": {"seed": 0}}
POOLS = {
    "one dimension": ((9,), 4),
    "two": ((13, 10), (5, 7)),
    "one of two is kept": ((13, 10), (None, 4)),
    "three": ((5, 6, 7), (2, 6, 3)),
    "equal bins": ((12, 8), (6, 4)),
    "equal bins of three": ((4, 6, 8), (2, 3, 8)),
    "more bins than places": ((3, 2), (5, 5)),
}


@pytest.mark.parametrize("kind", POOLS)
def test_means_are_those_of_the_pool(kind: str) -> None:
    sides, size = POOLS[kind]
    x = torch.randn(2, 3, *sides, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    pool = getattr(F, f"adaptive_avg_pool{len(sides)}d")
    with PlainPools():
        found, named = pool(x, size), pool(output_size=size, input=x)
    torch.testing.assert_close(found, pool(x, size))
    assert torch.equal(found, named)


@pytest.mark.parametrize("to", [{"size": (5, 7)}, {"size": 4}, {"scale_factor": 0.4}], ids=str)
def test_resizing_by_area_is_a_pool(to: dict[str, object]) -> None:
    x = torch.randn(2, 3, 13, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with PlainPools():
        found = F.interpolate(x, mode="area", **to)
        other = F.interpolate(x, mode="nearest", **to)
    torch.testing.assert_close(found, F.interpolate(x, mode="area", **to))
    assert torch.equal(other, F.interpolate(x, mode="nearest", **to))


class Resized(nn.Module):
    """A branch that is enlarged, convolved and pooled back, as in ESPNetv2's decoder."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.branch = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, 2, h, w)."""
        x = self.stem(x).relu()
        large = F.interpolate(x, (48, 48), mode="bilinear", align_corners=True)
        x = x + F.adaptive_avg_pool2d(self.branch(large), x.shape[2:])
        small = F.interpolate(x, (5, 5), mode="area")
        return self.head(x + F.interpolate(small, x.shape[2:]))  # type: ignore[no-any-return]


def test_a_file_with_such_pools_is_small_and_has_the_students_results() -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from dreamquant.export.onnx_file import onnx_file

    spec = InputSpec((3, 32, 32), (0.0,) * 3, (1.0,) * 3, 2, task="segmentation")
    random = torch.Generator().manual_seed(0)
    scheme = Scheme(Bits(8, 8), placement="layer-input", joins=8)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        student, _ = quantize_network(Resized().eval(), scheme, torch.zeros(2, *spec.shape))
    student.observe(True)
    student(torch.randn(8, *spec.shape, generator=random))
    student.observe(False)
    student.fix()
    file = onnx_file(student.eval(), MANIFEST, spec, "int8box", layout=None, two_bit=False)
    assert list(file.verification.agreement) == ["onnxruntime", "openvino"]
    constants = onnx.load_from_string(file.data).graph.initializer
    whole = [each for each in constants if each.data_type == onnx.TensorProto.INT64]
    assert max(prod(each.dims) for each in whole) <= 32  # indices of one dimension


def test_three_dimensions_are_pooled_to_several_places() -> None:
    pytest.importorskip("onnx")
    from dreamquant.export.graph import draw

    spec = InputSpec((1, 4, 16), (0.0,), (1.0,), 8)
    pool = nn.Sequential(nn.Unflatten(2, (2, 2)), nn.Conv3d(1, 1, 1), nn.AdaptiveAvgPool3d(2))
    network = nn.Sequential(pool, nn.Flatten()).eval()
    scheme = Scheme(Bits(8, 8), placement="layer-input", joins=8)
    student, _ = quantize_network(network, scheme, torch.zeros(2, *spec.shape))
    student.fix()
    assert "AveragePool" in {node.op_type for node in draw(student.eval(), spec).graph}
