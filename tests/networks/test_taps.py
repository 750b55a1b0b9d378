from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from dreamquant.errors import NetworkError
from dreamquant.networks.channel_statistics import (
    batch_statistics,
    channel_statistics,
    image_statistics,
)
from dreamquant.networks.module_outputs import Outputs
from dreamquant.networks.norm_inputs import BatchNormInputs, Statistics
from dreamquant.networks.relu_maps import LastMap, is_relu
from dreamquant.networks.taps import Output, entering
from dreamquant.quantization.convert import quantize_network
from dreamquant.quantization.scheme import Bits, Scheme


def reference(x):
    """Mean and biased variance per channel, in loops over float64."""
    array = x.detach().double().numpy()
    rows = [array[:, c].ravel() for c in range(array.shape[1])]
    means = [sum(row) / len(row) for row in rows]
    return means, [
        sum((v - mean) ** 2 for v in row) / len(row) for row, mean in zip(rows, means, strict=True)
    ]


def hook_counts(module):
    return [len(part._forward_pre_hooks) + len(part._forward_hooks) for part in module.modules()]


def read(tap, network, images):
    """What a term gets of one forward pass."""
    with tap.watch(network) as collected:
        network(images)
    return tap.value(collected())


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 2, 3), nn.ReLU6()
    ).eval()


# ------------------------------------------------------------------ batch-norm inputs


@pytest.mark.parametrize(
    ("norm", "shape"),
    [
        (nn.BatchNorm1d(3), (7, 3)),
        (nn.BatchNorm1d(3), (7, 3, 5)),
        (nn.BatchNorm2d(3), (4, 3, 5, 6)),
        (nn.BatchNorm3d(3), (2, 3, 2, 3, 4)),
        (nn.BatchNorm2d(3), (1, 3, 1, 1)),
    ],
    ids=lambda value: "" if isinstance(value, nn.Module) else "x".join(map(str, value)),
)
def test_statistics_are_mean_and_biased_variance_per_channel(norm, shape):
    torch.manual_seed(0)
    x = 3 * torch.randn(shape) + 5
    found = read(BatchNormInputs(), norm.eval(), x)
    mean, var = reference(x)
    np.testing.assert_allclose(found.mean.numpy(), mean, rtol=1e-5)
    np.testing.assert_allclose(found.var.numpy(), var, rtol=1e-5, atol=1e-6)
    assert found.stored_mean.equal(norm.running_mean)
    assert found.stored_var.equal(norm.running_var)


class Detour(nn.Module):
    """Runs its norms in another order than it registers them, one of them twice, one never."""

    def __init__(self):
        super().__init__()
        self.last, self.twice, self.never = (nn.BatchNorm2d(n) for n in (2, 3, 7))
        self.conv = nn.Conv2d(3, 2, 1)
        for i, norm in enumerate((self.last, self.twice, self.never)):
            nn.init.normal_(norm.running_mean, mean=i)
            nn.init.uniform_(norm.running_var, 0.5, 1.5)

    def inputs(self, images):
        """Each norm that runs, with what enters it, in order."""
        once = self.twice(images) * 2
        last = self.conv(self.twice(once))
        return [(self.twice, images), (self.twice, once), (self.last, last)]

    def forward(self, images):
        norm, entered = self.inputs(images)[-1]
        return norm(entered).mean((2, 3))


def by_hand(x, norm):
    return (*reference(x), norm.running_mean.tolist(), norm.running_var.tolist())


def test_statistics_are_of_the_norms_inputs_in_the_order_executed():
    torch.manual_seed(0)
    detour = Detour().eval().requires_grad_(False)
    images = torch.randn(4, 3, 5, 6)
    found = read(BatchNormInputs(), detour, images)
    wanted = [by_hand(x, norm) for norm, x in detour.inputs(images)]
    assert found.sizes == (3, 3, 2)
    for layer, values in zip(found.layers, wanted, strict=True):
        for ours, theirs in zip(layer, values, strict=True):
            np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-5, atol=1e-6)
    assert found.weight.tolist() == pytest.approx([1 / 9] * 6 + [1 / 6] * 2)


def test_images_apart_have_statistics_of_their_own():
    torch.manual_seed(0)
    detour = Detour().eval().requires_grad_(False)
    images = torch.randn(4, 3, 5, 6)
    found = read(BatchNormInputs(per_image=True), detour, images)
    assert found.mean.shape == found.var.shape == (4, 8)
    assert found.stored_mean.shape == (8,)
    for layer, (norm, entered) in zip(found.layers, detour.inputs(images), strict=True):
        assert layer.stored_mean.equal(norm.running_mean)
        for i, image in enumerate(entered):
            mean, var = reference(image[None])
            np.testing.assert_allclose(layer.mean[i].numpy(), mean, rtol=1e-4, atol=1e-6)
            np.testing.assert_allclose(layer.var[i].numpy(), var, rtol=1e-4, atol=1e-6)


def test_layers_are_the_vectors_cut_at_each_layers_channels():
    mean, var = torch.arange(10.0).view(2, 5), torch.arange(10.0, 20).view(2, 5)
    first, second = Statistics(mean, var, mean[0], var[0], sizes=(2, 3)).layers
    assert first.mean.tolist() == [[0, 1], [5, 6]]
    assert second.var.tolist() == [[12, 13, 14], [17, 18, 19]]
    assert (first.stored_mean.tolist(), second.stored_var.tolist()) == ([0, 1], [12, 13, 14])


def test_weights_average_over_a_layers_channels_then_over_layers():
    values = torch.tensor([1.0, 3.0, 10.0, 20.0, 30.0], dtype=torch.float64)
    found = Statistics(values, values, values, values, sizes=(2, 3))
    assert found.weight.dtype == values.dtype
    assert (found.weight * values).sum().item() == pytest.approx((2 + 20) / 2, rel=1e-14)


def test_statistics_pass_gradients_and_leave_the_norm_as_it_is():
    norm = nn.BatchNorm2d(2).eval()
    state = {name: tensor.clone() for name, tensor in norm.state_dict().items()}
    x = torch.randn(4, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    gradient = torch.autograd.grad(read(BatchNormInputs(), norm, x.float()).var.sum(), x)[0]
    centred = x - x.mean((0, 2, 3), keepdim=True)
    torch.testing.assert_close(gradient, 2 * centred / 36, rtol=1e-5, atol=1e-6)
    assert all(tensor.equal(state[name]) for name, tensor in norm.state_dict().items())


@pytest.mark.parametrize("shape", [(7, 3), (2, 3, 4), (2, 3, 2, 4), (2, 3, 2, 1, 2)], ids=str)
def test_gradients_of_statistics_agree_with_finite_differences(shape):
    torch.manual_seed(0)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: tuple(channel_statistics(x)), (x,))


def test_half_precision_is_summed_in_full_precision():
    torch.manual_seed(0)
    x = (torch.randn(8, 2, 16, 16) + 10).bfloat16().requires_grad_()
    found = channel_statistics(x)
    mean, var = reference(x)
    assert found.mean.dtype == found.var.dtype == torch.float32
    np.testing.assert_allclose(found.mean.detach().numpy(), mean, rtol=1e-5)
    np.testing.assert_allclose(found.var.detach().numpy(), var, rtol=1e-4)
    assert torch.autograd.grad(found.var.sum(), x)[0].dtype == torch.bfloat16
    assert image_statistics(x).var.dtype == torch.float32


@pytest.mark.parametrize(
    ("module", "lack"),
    [
        (nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()), "it has no batch norm"),
        (nn.Sequential(nn.BatchNorm2d(1, track_running_stats=False)), "it has no batch norm"),
        (nn.ModuleDict({"never": nn.BatchNorm2d(1)}), "none of its batch norms runs"),
    ],
    ids=["none", "none that keeps statistics", "none that runs"],
)
def test_a_network_that_runs_no_batch_norm_is_refused(module, lack):
    if isinstance(module, nn.ModuleDict):
        module.forward = lambda images: images
    with pytest.raises(NetworkError, match=lack) as e:
        BatchNormInputs().require(module.eval(), torch.zeros(2, 1, 8, 8))
    assert e.value.where == "--method"
    assert "dreamquant methods" in e.value.remedy


def test_training_mode_lasts_as_long_as_it_is_asked_for():
    x, net = torch.randn(5, 1, 8, 8), network()
    with batch_statistics([net[1]]):
        assert net[1](net[0](x)).mean((0, 2, 3)).abs().max() < 1e-5
    assert not net[1].training
    with pytest.raises(RuntimeError), batch_statistics([net[1]]):
        net(torch.zeros(1, 9, 8, 8))
    assert not net[1].training


# --------------------------------------------------------------------------- outputs


def test_the_output_needs_no_hook():
    net, images = network(), torch.zeros(2, 1, 8, 8)
    before = hook_counts(net)
    with Output().watch(net) as collected:
        assert hook_counts(net) == before
        net(images)
    assert collected() == ()
    Output().require(net, images)  # every network has one
    assert Output().value([images]) is images


def test_the_last_map_is_what_the_last_relu_gives():
    net, images = network(), torch.randn(2, 1, 8, 8)
    assert read(LastMap(), net, images).equal(net(images))
    logits = nn.Sequential(*net, nn.Flatten(), nn.Linear(32, 5), nn.ReLU())
    assert read(LastMap(), logits, images).equal(net(images)), "a ReLU of logits is no map"


class Functional(nn.Module):
    """ReLUs that are functions, one of them in place, and a hard tanh that is none."""

    def __init__(self, relu):
        super().__init__()
        self.conv, self.relu = nn.Conv2d(1, 2, 3), relu

    def forward(self, x):
        return nn.functional.hardtanh(self.relu(self.conv(x)))


@pytest.mark.parametrize(
    "relu",
    [
        torch.relu,
        nn.functional.relu,
        nn.functional.relu6,
        lambda x: x.relu(),
        lambda x: nn.functional.relu(x, inplace=True),
        lambda x: nn.functional.hardtanh(x, 0.0, 6.0),
        lambda x: nn.functional.hardtanh(x, min_val=0.0, max_val=1.0),
    ],
)
def test_a_relu_is_found_however_it_is_spelled(relu):
    torch.manual_seed(0)
    net, images = Functional(relu), torch.randn(2, 1, 8, 8)
    assert read(LastMap(), net, images).equal(relu(net.conv(images)))


def test_a_hard_tanh_of_both_signs_is_no_relu():
    x = torch.zeros(1)
    assert not is_relu(nn.functional.hardtanh, (x,), {})
    assert not is_relu(nn.functional.hardtanh, (x, -1.0), {})
    assert not is_relu(torch.tanh, (x,), {})


def test_a_network_without_a_relu_map_is_refused():
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 3), nn.ReLU()).eval()
    with pytest.raises(NetworkError, match="no ReLU of the network returns one") as e:
        LastMap().require(net, torch.zeros(2, 1, 8, 8))
    assert "gdfq" in e.value.remedy


class Blocks(nn.Module):
    """Named blocks, run in another order than they are registered; one returns a pair."""

    def __init__(self):
        super().__init__()
        self.layer1, self.layer2 = nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 3)
        self.layer3, self.head = nn.MaxPool2d(2, return_indices=True), nn.Flatten()

    def forward(self, images):
        return self.head(self.layer3(self.layer1(self.layer2(images)))[0])


@pytest.mark.parametrize(
    ("pattern", "names"),
    [("layer*", ["layer2", "layer1"]), ("layer1", ["layer1"]), ("[!l]*", ["head"])],
)
def test_outputs_are_those_of_matching_modules_in_the_order_executed(pattern, names):
    torch.manual_seed(0)
    blocks, images = Blocks().eval(), torch.randn(2, 1, 8, 8)
    second = blocks.layer2(images)
    first = blocks.layer1(second)
    wanted = {"layer1": first, "layer2": second, "head": blocks(images)}
    Outputs(pattern).require(blocks, images)
    found = read(Outputs(pattern), blocks, images)
    assert len(found) == len(names)
    assert all(x.equal(wanted[name]) for x, name in zip(found, names, strict=True))


@pytest.mark.parametrize("placement", ["relu-output", "layer-input"])
@pytest.mark.parametrize("pattern", ["*", "0*", "?"])
def test_outputs_of_a_student_are_those_of_the_teachers_modules(pattern, placement):
    net, images = network().requires_grad_(False), torch.randn(2, 1, 8, 8)
    student, _ = quantize_network(net, Scheme(Bits(4, 4), placement), images)
    ours, theirs = (read(Outputs(pattern), which, images) for which in (student, net))
    assert [x.shape for x in ours] == [x.shape for x in theirs]


def test_outputs_are_float32_with_a_gradient():
    layer = nn.Linear(3, 2).bfloat16()
    x = torch.randn(4, 3).bfloat16().requires_grad_()
    (found,) = read(Outputs("0"), nn.Sequential(layer), x)
    assert found.dtype == torch.float32
    assert torch.autograd.grad(found.sum(), x)[0].abs().sum() > 0


@pytest.mark.parametrize("pattern", ["stage*", "layer3"], ids=["no such module", "gives a pair"])
def test_a_network_that_runs_no_such_module_is_refused(pattern):
    with pytest.raises(
        NetworkError, match=f"outputs of modules named {pattern!r}".replace("*", r"\*")
    ) as e:
        Outputs(pattern).require(Blocks().eval(), torch.zeros(2, 1, 8, 8))
    assert "dreamquant methods" in e.value.remedy


# ------------------------------------------------------------------------------ hooks


@pytest.mark.parametrize("tap", [BatchNormInputs(), LastMap(), Outputs("0")], ids=str)
def test_hooks_are_gone_afterwards_even_after_an_error(tap):
    net = network()
    before = hook_counts(net)
    with tap.watch(net):
        net(torch.zeros(1, 1, 8, 8))
    assert hook_counts(net) == before
    with pytest.raises(RuntimeError), tap.watch(net):
        net(torch.zeros(1, 9, 8, 8))
    assert hook_counts(net) == before
    assert len(torch.overrides._get_current_function_mode_stack()) == 0


def test_nothing_tapped_is_nothing_collected():
    with BatchNormInputs().watch(nn.ReLU()) as collected:
        nn.BatchNorm2d(2).eval()(torch.zeros(1, 2, 2, 2))
    assert collected() == ()


def test_modules_are_seen_with_their_inputs_as_they_run():
    a, b, c = nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)
    x, seen = torch.zeros(1, 2), []
    with entering([c, b, a], lambda module, inputs: seen.append((module, *inputs))):
        c(b(a(b(x))))
    assert [id(module) for module, _ in seen] == [id(module) for module in (b, a, b, c)]
    assert seen[0][1] is x


@pytest.mark.parametrize(
    ("tap", "other"),
    [(BatchNormInputs(), BatchNormInputs(per_image=True)), (Outputs("a"), Outputs("b"))],
    ids=str,
)
def test_taps_are_values(tap, other):
    assert tap == type(tap)(**vars(tap))
    assert hash(tap) == hash(type(tap)(**vars(tap)))
    assert tap != other
