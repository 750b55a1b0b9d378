"""Student and teacher side by side."""

import pytest
import torch
import torch.nn.functional as F

from dreamquant.recovery.branches import find_branches
from dreamquant.recovery.walk import LayerMet, RangeMet, walk


def meetings(network, bench, pool, act=lambda met: None):
    branches = find_branches(network, list(bench.student.quantized_weights()), pool[:2])
    found = []
    with walk(bench.student, network, list(pool.split(16)), branches) as met:
        for each in met:
            act(each)
            found.append(each)
    return found


@pytest.mark.parametrize("placement", ["relu-output", "layer-input"])
def test_everything_is_met_once_in_the_order_executed(make_network, make_bench, pool, placement):
    network = make_network()
    bench = make_bench(network, placement=placement)
    found = meetings(network, bench, pool)
    layers = [met.name for met in found if isinstance(met, LayerMet)]
    assert layers == ["stem", "block.conv1", "block.conv2", "depthwise", "head"]
    ranges = [met.name for met in found if isinstance(met, RangeMet)]
    assert sorted(ranges) == sorted(bench.student.activation_quantizers())


def test_inputs_come_from_the_student_and_outputs_from_the_teacher(make_network, make_bench, pool):
    network = make_network()
    bench = make_bench(network)
    bench.student.relu_outputs[0].place(torch.tensor(0.3), torch.tensor(0))
    met = meetings(network, bench, pool)
    stem = bench.student.network.stem(pool)
    conv1 = next(each for each in met if each.name == "block.conv1")
    assert torch.allclose(torch.cat(conv1.inputs), bench.student.relu_outputs[0](F.relu(stem)))
    assert torch.allclose(
        torch.cat(conv1.wanted), network.block.conv1(F.relu(network.stem(pool))), atol=1e-5
    )


@pytest.mark.parametrize("options", [{}, {"norms": False}, {"in_place": True}])
def test_a_layer_that_gives_what_is_wanted_repairs_the_whole_sum(
    make_network, make_bench, pool, options
):
    network = make_network(**options)
    bench = make_bench(network, "w8a8")
    sums = {}

    def act(met):
        if isinstance(met, LayerMet) and met.name == "block.conv2":
            sums["wanted"] = torch.cat(met.wanted)
            sums["input"] = torch.cat(met.inputs)

    meetings(network, bench, pool, act)
    with torch.no_grad():
        shortcut = bench.student.relu_outputs[0](F.relu(bench.student.network.stem(pool)))
        repaired = network.block.bn2(sums["wanted"]) + shortcut
        x = F.relu(network.stem(pool))
        block = network.block
        intended = block.bn2(block.conv2(F.relu(block.bn1(block.conv1(x))))) + x
    assert torch.allclose(repaired, intended, atol=1e-4)


def test_what_is_changed_at_a_meeting_holds_for_all_that_comes_later(
    make_network, make_bench, pool
):
    network = make_network()
    bench = make_bench(network)
    seen = {}

    @torch.no_grad()
    def act(met):
        if isinstance(met, LayerMet):
            latent, _ = bench.student.quantized_weights()[met.name]
            latent.mul_(0)
            bench.student.network.get_submodule(met.name)
            seen[met.name] = met

    meetings(network, bench, pool, act)
    stem = bench.student.network.stem(pool)
    conv1 = torch.cat(seen["block.conv1"].inputs)
    assert torch.allclose(conv1, bench.student.relu_outputs[0](F.relu(stem)))
    # The sum's layer too: its result is computed anew.
    x = conv1
    block = bench.student.network.block
    with torch.no_grad():
        middle = bench.student.relu_outputs[1](F.relu(block.bn1(block.conv1(x))))
        after = bench.student.relu_outputs[2](F.relu(block.bn2(block.conv2(middle)) + x))
    assert torch.allclose(torch.cat(seen["depthwise"].inputs), after, atol=1e-6)


def test_the_networks_are_left_without_hooks(make_network, make_bench, pool):
    network = make_network()
    bench = make_bench(network)
    wanted = bench.student(pool)
    meetings(network, bench, pool)
    assert torch.equal(bench.student(pool), wanted)
    assert not any(module._forward_hooks for module in bench.student.modules())
