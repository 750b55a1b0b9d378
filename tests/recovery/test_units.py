"""Units of reconstruction."""

import pytest
import torch
from torch import nn

from dreamquant.errors import MethodError, SchemeError
from dreamquant.networks.demo.transformer import Transformer
from dreamquant.quantization.convert import quantize_network
from dreamquant.quantization.scheme import Bits, Scheme
from dreamquant.recovery.reconstruct import Reconstruct
from dreamquant.recovery.units import Unit, find_units, quantizers_of

IMAGES = torch.zeros(2, 3, 8, 8)
LAYERS = ["stem", "block.conv1", "block.conv2", "depthwise", "head"]


def test_a_residual_block_is_a_unit_and_other_layers_are_their_own(make_network):
    assert find_units(make_network(), LAYERS, IMAGES) == [
        Unit("stem", ("stem",)),
        Unit("block", ("block.conv1", "block.conv2")),
        Unit("depthwise", ("depthwise",)),
        Unit("head", ("head",)),
    ]


class Inverted(nn.Module):
    def __init__(self, stride):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, stride, padding=1)
        self.shortcut = stride == 1

    def forward(self, x):
        return x + self.conv(x) if self.shortcut else self.conv(x)


def test_blocks_of_the_same_class_without_a_sum_are_units_too():
    network = nn.Sequential(Inverted(1), Inverted(2), nn.Conv2d(3, 3, 1))
    names = [unit.name for unit in find_units(network, ["0.conv", "1.conv", "2"], IMAGES)]
    assert names == ["0", "1", "2"]


def test_units_can_be_chosen():
    network = nn.Sequential(nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU()), nn.Conv2d(3, 3, 1))
    assert find_units(network, ["0.0", "1"], IMAGES, ["0"]) == [
        Unit("0", ("0.0",)),
        Unit("1", ("1",)),
    ]
    with pytest.raises(MethodError, match="'stage\\*'"):
        find_units(network, ["0.0", "1"], IMAGES, ["stage*"])


def test_a_unit_runs_on_its_own_as_within_the_student(make_network, make_bench, pool):
    bench = make_bench(make_network())
    student = bench.student
    unit = Unit("block", ("block.conv1", "block.conv2"))
    quantizers = quantizers_of(student, unit, IMAGES)
    assert quantizers.all == list(student.relu_outputs)[1:3]
    x = student.relu_outputs[0](torch.relu(student.network.stem(pool)))
    seen = []
    student.network.block.register_forward_hook(lambda *a: seen.append(a[2]))
    with torch.no_grad():
        student(pool)
        with quantizers.context():
            student.network.block(x)
    assert torch.equal(*seen)


def test_stored_tensors_are_refused_before_a_run():
    with pytest.raises(SchemeError, match="leave --elementwise out"):
        Reconstruct().require_scheme(Scheme(Bits(8, 8), placement="layer-input", joins=8))


@pytest.mark.parametrize("softmax", ["linear", "log2"])
def test_a_block_of_a_transformer_runs_on_its_own_with_its_operands_quantized(softmax):
    torch.manual_seed(0)
    network = Transformer(nn.Conv2d(1, 8, 2, stride=2), 4, width=8, depth=2, heads=2).eval()
    images = torch.randn(6, 1, 4, 4)
    scheme = Scheme(Bits(4, 4), placement="operands", softmax=softmax)
    student, _ = quantize_network(network, scheme, images[:2])
    student.observe(True)
    student(images)
    student.observe(False)
    names = list(student.quantized_layers())
    unit = next(u for u in find_units(network, names, images[:2]) if u.name == "blocks.1")
    quantizers = quantizers_of(student, unit, images[:2])
    # Of four layers the inputs, of two products the operands, and what GELU reads.
    assert len(quantizers.all) == 4 + 4 + 1
    block, seen = student.network.blocks[1], []
    block.register_forward_hook(lambda _, inputs, output: seen.append((inputs[0], output)))
    with torch.no_grad():
        student(images)
        with quantizers.context():
            block(seen[0][0])
    assert torch.equal(seen[0][1], seen[1][1])
