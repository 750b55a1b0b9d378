import copy
from fnmatch import fnmatchcase
from statistics import mean

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dreamquant.errors import NetworkError, SchemeError
from dreamquant.networks.zoo import ZOOS
from dreamquant.quantization.convert import quantize_network
from dreamquant.quantization.scheme import Bits, Scheme

LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear, nn.ConvTranspose2d)
PLACEMENTS = ("relu-output", "layer-input")


# -------------------------------------------------------------------------------- networks


def conv(inputs, outputs, **options):
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False, **options), nn.BatchNorm2d(outputs)
    )


class Net(nn.Module):
    """Features 3 x H x W to 8 x H x W by a subclass, then five logits."""

    def __init__(self):
        super().__init__()
        self.stem = conv(3, 8)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        return self.head(self.features(torch.relu(self.stem(x))).mean((2, 3)))


class Plain(Net):
    def features(self, x):
        return x


class DenselyConnected(Net):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.narrow = conv(8, 4), conv(12, 4), conv(16, 8)

    def features(self, x):
        x = torch.cat([x, F.relu(self.first(x))], 1)
        x = torch.cat([x, F.relu(self.second(x))], 1)
        return F.relu(self.narrow(x), inplace=True)


class Inception(Net):
    def __init__(self):
        super().__init__()
        self.one, self.three, self.pooled = conv(8, 3), conv(8, 3), conv(8, 2)
        self.after = conv(3, 3)

    def features(self, x):
        three = F.relu(self.after(F.relu(self.three(x))))
        pooled = F.relu(self.pooled(F.max_pool2d(x, 3, 1, 1)))
        return torch.cat([F.relu(self.one(x)), three, pooled], 1)


class Twice(Net):
    def __init__(self):
        super().__init__()
        self.shared, self.act = conv(8, 8), nn.ReLU(inplace=True)

    def features(self, x):
        return self.act(self.shared(self.act(self.shared(x))))


class UnderTwoNames(Net):
    def __init__(self):
        super().__init__()
        self.one = self.other = conv(8, 8)

    def features(self, x):
        return torch.relu(self.other(torch.relu(self.one(x))))


class Clipped(Net):
    def __init__(self):
        super().__init__()
        self.act = nn.Hardtanh(0, 6)

    def features(self, x):
        return self.act(10 * x)


class Upscaled(Net):
    def __init__(self):
        super().__init__()
        self.up = nn.ConvTranspose2d(8, 6, 2, stride=2)
        self.grouped_up = nn.ConvTranspose2d(6, 8, 2, groups=2)

    def features(self, x):
        return torch.relu(self.grouped_up(torch.relu(self.up(x, output_size=[17, 17]))))


class Grouped(Net):
    def __init__(self):
        super().__init__()
        self.depthwise, self.grouped = conv(8, 8, groups=8), conv(8, 8, groups=2)

    def features(self, x):
        return F.relu6(self.grouped(F.relu6(self.depthwise(x))))


class Sequence(nn.Module):
    """Convolutions of other dimensions, and a linear layer on tokens."""

    def __init__(self):
        super().__init__()
        self.tokens, self.line = nn.Linear(3, 6), nn.Conv1d(6, 6, 3)
        self.volume, self.head = nn.Conv3d(1, 4, (2, 2, 1)), nn.Linear(4, 5)

    def forward(self, x):
        x = torch.relu(self.tokens(x.flatten(2).transpose(1, 2)))
        x = torch.relu(self.line(x.transpose(1, 2)))
        return self.head(torch.relu(self.volume(x[:, None, :, :, None])).mean((2, 3, 4)))


OWN = {  # and how many ReLUs it runs
    Plain: 1,
    DenselyConnected: 4,
    Inception: 5,
    Twice: 3,
    UnderTwoNames: 3,
    Clipped: 2,
    Upscaled: 3,
    Grouped: 3,
    Sequence: 3,
}
ZOO = {
    "torchvision:resnet18": 17,  # of 9 modules
    "torchvision:mobilenet_v2": 35,
    "torchvision:densenet121": 121,
    "torchvision:shufflenet_v2_x0_5": 37,
    "timm:mobilenetv2_050": 35,
    "timm:tf_mobilenetv3_small_minimal_100": 24,  # pads inside of its convolutions
    "pytorchcv:resnet20_cifar10": 19,
}


def build(network, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if isinstance(network, str):
            zoo, name = network.split(":")
            pytest.importorskip(zoo)
            module = ZOOS[zoo](name, pretrained=False).module
        else:
            module = network()
    # Statistics and affine parameters that are not all alike, as training leaves them.
    generator = torch.Generator().manual_seed(seed)
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
                tensor.data += 0.1 * torch.rand(tensor.shape, generator=generator)
    return module.eval().requires_grad_(False)


def images(count=2, size=8):
    return torch.randn((count, 3, size, size), generator=torch.Generator().manual_seed(1))


def scheme(bits="w3a4", placement="relu-output", **options):
    return Scheme(Bits.parse(bits), placement, **options)


def convert(network, scheme, x=None):
    """A student of fixed ranges."""
    x = images() if x is None else x
    student, coverage = quantize_network(network, scheme, torch.zeros_like(x))
    student.observe(True)
    with torch.no_grad():
        student(x)
    student.observe(False)
    return student, coverage


def layers_of(network):
    return {name: m for name, m in network.named_modules() if isinstance(m, LAYERS)}


def distinct_per_channel(layer):
    weight = layer.weight
    if isinstance(layer, nn.ConvTranspose2d):  # (inputs, outputs / groups, ...): inputs by group
        weight = torch.cat([part.transpose(0, 1) for part in weight.chunk(layer.groups)])
    ordered = weight.flatten(1).sort(1).values
    return 1 + ordered.diff(dim=1).ne(0).sum(1).max().item()


def state(network):
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def hooks(network):
    return sum(len(m._forward_pre_hooks) + len(m._forward_hooks) for m in network.modules())


def refusal(network, scheme):
    with pytest.raises(SchemeError) as caught:
        quantize_network(network, scheme, images())
    return str(caught.value)


# ------------------------------------------------------------------------------- any network


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize(
    ("network", "relus"), [*OWN.items(), *ZOO.items()], ids=lambda x: getattr(x, "__name__", x)
)
def test_networks_are_wholly_quantized(network, relus, placement):
    teacher, x = build(network), images(size=32 if isinstance(network, str) else 8)
    before, answer, handles = state(teacher), teacher(x), hooks(teacher)
    student, coverage = convert(teacher, scheme("w3a4", placement), x)

    # Every layer is found, by its name in the user's module, and no other is named.
    names = set(layers_of(teacher))
    assert {layer.name for layer in coverage.layers} == names == set(student.quantized_weights())
    assert coverage.left_in_float == ()
    assert coverage.relu_outputs == ((4,) * relus if placement == "relu-output" else ())

    seen = {}
    for name, quantizer in student.activation_quantizers().items():
        quantizer.register_forward_hook(
            lambda _module, _inputs, out, name=name: seen.setdefault(name, []).append(out)
        )
    entering = {}
    for name, layer in layers_of(student.network).items():
        layer.register_forward_pre_hook(
            lambda _module, inputs, name=name: entering.setdefault(name, []).append(inputs[0])
        )
    with torch.no_grad():
        student(x)

    # Weights, then activations, take few values.
    for name, layer in layers_of(student.network).items():
        assert 1 < distinct_per_channel(layer) <= 8, name
    assert set(seen) == set(student.activation_quantizers())
    assert all(1 < len(out.unique()) <= 16 for calls in seen.values() for out in calls)
    if placement == "relu-output":
        assert [len(calls) for calls in seen.values()] == [1] * relus
        assert all(calls[0].min() == 0 for calls in seen.values())
    else:
        assert len(seen) == len(names)
        assert all(len(x.unique()) <= 16 for calls in entering.values() for x in calls)

    # The teacher is as it was; the student is not.
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())
    assert torch.equal(teacher(x), answer)
    assert not torch.equal(student(x), answer)
    assert hooks(teacher) == handles
    assert not any(p.requires_grad for p in teacher.parameters())
    assert not any(module.training for module in (*teacher.modules(), *student.modules()))
    ours = {tensor.data_ptr() for tensor in teacher.state_dict().values()}
    assert not any(tensor.data_ptr() in ours for tensor in student.state_dict().values())


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("seed", range(3))
def test_an_error_grows_as_bits_go(placement, seed):
    teacher, x = build(Inception, seed), images(16)

    def error(bits):
        student, _ = convert(teacher, scheme(bits, placement), x)
        return ((student(x) - teacher(x)).norm() / teacher(x).norm()).item()

    # Steps are 17 times as wide at 4 bits as at 8, and 5 times as wide at 2 bits as at 4; errors
    # grow about as much, over eight networks at least 7 and 2.5 times.
    assert 4 * error("w8a8") < error("w4a4") < error("w2a2")


def test_layers_are_told_in_the_order_executed():
    _, coverage = convert(build(Inception), scheme())
    assert [(layer.name, layer.kind) for layer in coverage.layers] == [
        ("stem.0", "Conv2d"),
        ("three.0", "Conv2d"),
        ("after.0", "Conv2d"),
        ("pooled.0", "Conv2d"),
        ("one.0", "Conv2d"),
        ("head", "Linear"),
    ]


@pytest.mark.parametrize(("name", "channels"), [("up", 6), ("grouped_up", 8)])
def test_scales_of_transposed_convolutions_lie_along_their_outputs(name, channels):
    student, coverage = convert(build(Upscaled), scheme())
    (found,) = [layer for layer in coverage.layers if layer.name == name]
    assert (found.kind, found.channels) == ("ConvTranspose2d", channels)
    assert student.quantized_weights()[name].quantizer.axis == 1


def test_layer_input_quantizes_the_image_itself():
    student, x = convert(build(Plain), scheme("w8a2", "layer-input"))[0], images()
    seen = []
    student.network.stem[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    student(x)
    assert len(x.unique()) > 300
    assert len(seen[0].unique()) == 4


def test_inputs_may_be_given_by_name():
    class Named(Net):
        def forward(self, x):
            return self.head(input=torch.relu(self.stem[0](input=x)).mean((2, 3)))

    student, _ = convert(build(Named), scheme("w8a2", "layer-input"))
    seen = []
    for layer in layers_of(student.network).values():
        layer.register_forward_pre_hook(lambda *given: seen.append(given[2]), with_kwargs=True)
    student(images())
    assert [len(given["input"].unique()) <= 4 for given in seen] == [True, True]


def test_relu_output_leaves_the_image_alone():
    student, x = convert(build(Plain), scheme("w8a2"))[0], images()
    seen = []
    student.network.stem[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    student(x)
    assert torch.equal(seen[0], x)


# ------------------------------------------------------------------------------------ bits

BITS = {"stem.0": 3, "three.0": 3, "after.0": 3, "pooled.0": 3, "one.0": 3, "head": 3}


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize(
    ("options", "changed"),
    [
        ({}, {}),
        ({"first_last_bits": 8}, {"stem.0": 8, "head": 8}),
        ({"overrides": (("*.0", Bits(5, 5)), ("o*", Bits(2, 2)))}, dict.fromkeys(BITS, 5)),
        ({"first_last_bits": 8, "overrides": (("head", Bits(6, 6)),)}, {"stem.0": 8, "head": 6}),
    ],
)
def test_bits_of_single_layers(placement, options, changed):
    student, coverage = convert(build(Inception), scheme("w3a3", placement, **options))
    expected = BITS | changed
    if "overrides" in options and "first_last_bits" not in options:
        expected |= {"head": 3, "one.0": 2}
    assert {layer.name: layer.weight_bits for layer in coverage.layers} == expected
    at_input = placement == "layer-input"
    inputs = expected if at_input else dict.fromkeys(expected)
    assert {layer.name: layer.input_bits for layer in coverage.layers} == inputs
    for name, layer in layers_of(student.network).items():
        assert layer.parametrizations.weight[0].bits == expected[name]
        assert distinct_per_channel(layer) <= 2 ** expected[name]
        if at_input:
            assert layer.input_quantizer.bits == expected[name]


def test_first_and_last_are_those_executed_not_those_declared():
    class Backwards(Net):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(8, 5)
            self.stem = conv(3, 8)
            self.middle = conv(8, 8)

        def features(self, x):
            return torch.relu(self.middle(x))

    _, coverage = convert(build(Backwards), scheme("w4a4", first_last_bits=8))
    assert [(layer.name, layer.weight_bits) for layer in coverage.layers] == [
        ("stem.0", 8),
        ("middle.0", 4),
        ("head", 8),
    ]


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_quantizers_are_as_the_scheme_says(placement):
    options = {"gradient": "clipped", "momentum": 0.75}
    student, _ = convert(build(Inception), scheme("w4a3", placement, **options))
    for quantizer in student.activation_quantizers().values():
        assert (quantizer.bits, quantizer.range.momentum) == (3, 0.75)
        assert quantizer.clipped_gradient
        assert quantizer.growth is None


# ------------------------------------------------------------------------------- gradients


@pytest.mark.parametrize("ranges", ["ema", "learned"])
@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("network", [Inception, Twice, Upscaled, "pytorchcv:resnet20_cifar10"])
def test_gradients_reach_all_that_shall_learn(network, placement, ranges):
    teacher, x = build(network), images(size=32 if isinstance(network, str) else 8)
    student, _ = convert(teacher, scheme("w4a4", placement, ranges=ranges), x)
    F.cross_entropy(student(x), torch.tensor([0, 1])).backward()
    learning = {name for name, p in student.named_parameters() if p.requires_grad}
    growths = {f"{name}.growth" for name in student.activation_quantizers()} | {
        f"network.{name}.parametrizations.weight.0.growth" for name in layers_of(teacher)
    }
    floats = {f"network.{name}" for name in student.float_state()}
    latent = {f"network.{name}.parametrizations.weight.original" for name in layers_of(teacher)}
    assert latent <= learning
    assert growths & learning == (growths if ranges == "learned" else set())
    assert learning - growths - latent == {
        name for name in floats if name.rpartition(".")[2] in ("weight", "bias")
    }
    idle = {
        name
        for name, p in student.named_parameters()
        if p.requires_grad and (p.grad is None or not p.grad.any())
    }
    assert idle == set()


def test_the_student_learns_though_the_teacher_is_frozen():
    # How much is another number for each network: 0.27 to 0.58 over eight.
    assert mean(part_of_loss_left(build(Twice, seed)) for seed in range(3)) < 0.8


def part_of_loss_left(teacher):
    """The loss after 40 updates of a student, over that before them."""
    assert not any(p.requires_grad for p in teacher.parameters())
    wanted = torch.arange(15) % 5
    x = images(15) + wanted.view(-1, 1, 1, 1)
    student, _ = convert(teacher, scheme("w8a8"), x)
    # Else the features could not grow beyond their frozen ranges.
    student.observe(True)
    optimizer = torch.optim.Adam([p for p in student.parameters() if p.requires_grad], 0.03)
    losses = []
    for _ in range(100):
        loss = F.cross_entropy(student(x), wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses[-1] / losses[0]


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("network", [Inception, UnderTwoNames, Upscaled])
def test_fixing_does_not_change_the_outputs(network, placement):
    student, x = convert(build(network), scheme("w3a3", placement))[0], images()
    before = student(x)
    student.fix()
    assert torch.equal(student(x), before)
    student.fix()
    assert torch.equal(student(x), before)
    assert not any(p.requires_grad for p in student.parameters())
    for latent, quantizer in student.quantized_weights().values():
        assert torch.equal(quantizer(latent), latent)


def test_students_are_independent_copies():
    student, x = convert(build(Inception), scheme())[0], images()
    other, before = copy.deepcopy(student), student(x)
    with torch.no_grad():
        for p in other.parameters():
            p.mul_(2)
    assert torch.equal(student(x), before)
    assert not torch.equal(other(x), before)


# -------------------------------------------------------------------------- left in float


class Attention(Net):
    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(8, 24)

    def features(self, x):
        q, k, v = self.qkv(x.flatten(2).transpose(1, 2)).chunk(3, -1)
        return ((q @ k.transpose(1, 2)).softmax(-1).matmul(v)).transpose(1, 2).view(x.shape)


class Fused(Attention):
    def features(self, x):
        q, k, v = self.qkv(x.flatten(2).transpose(1, 2)).chunk(3, -1)
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape)


class Multihead(Net):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def features(self, x):
        tokens = x.flatten(2).transpose(1, 2)
        return self.attention(tokens, tokens, tokens)[0].transpose(1, 2).reshape(x.shape)


class Functional(Net):
    def __init__(self):
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(8, 8, 1, 1))

    def features(self, x):
        return torch.relu(F.conv2d(x, self.kernel))


class Idle(Net):
    def __init__(self):
        super().__init__()
        self.auxiliary = nn.Linear(8, 5)

    def features(self, x):
        return x


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize(
    ("network", "left"),
    [
        (Attention, ("matmul of computed tensors",) * 2),
        (Fused, ("scaled_dot_product_attention of computed tensors",)),
        (
            Multihead,
            ("MultiheadAttention attention",),
        ),
        (Functional, ("conv2d of computed tensors",)),
        (Idle, ("layer auxiliary (never run)",)),
    ],
)
def test_what_stays_in_float_is_named(network, left, placement):
    student, coverage = convert(build(network), scheme(placement=placement))
    assert coverage.left_in_float == left
    idle = {name for name in layers_of(student.network) if f"layer {name} (never run)" in left}
    idle |= {"attention.out_proj"} & set(layers_of(student.network))  # its weight alone is used
    assert set(student.quantized_weights()) == set(layers_of(student.network)) - idle


@pytest.mark.parametrize(
    ("product", "name"),
    [
        (lambda x: x @ x, "matmul"),
        (lambda x: torch.matmul(x, x), "matmul"),
        (lambda x: x[0].mm(x[0])[None], "mm"),
        (lambda x: torch.mm(x[0], x[0])[None], "mm"),
        (lambda x: torch.bmm(x, x), "bmm"),
        (lambda x: x.bmm(x), "bmm"),
        (lambda x: torch.addmm(x[0], x[0], x[0])[None], "addmm"),
        (lambda x: torch.baddbmm(x, x, x), "baddbmm"),
        (lambda x: torch.einsum("bij,bjk->bik", x, x), "einsum"),
        (lambda x: torch.tensordot(x[0], x[0], 1)[None], "tensordot"),
        (lambda x: F.linear(x, x[0]), "linear"),
        (lambda x: F.conv1d(x, x), "conv1d"),
        (lambda x: F.conv1d(x, weight=x), "conv1d"),
        (lambda x: F.bilinear(x, x, x.new_ones(5, 8, 8)), "bilinear"),
    ],
)
def test_every_product_of_computed_tensors_is_named(product, name):
    class Product(Net):
        def features(self, x):
            return x + product(x.sin().flatten(2)[:, :8, :8]).mean()

    _, coverage = convert(build(Product), scheme())
    assert coverage.left_in_float == (f"{name} of computed tensors",)


# --------------------------------------------------------------------------------- refusals


def test_no_activation_function_for_relu_output():
    class Linear(Net):
        def forward(self, x):
            return self.head(self.stem(x).mean((2, 3)))

    assert refusal(build(Linear), scheme()) == (
        "the network runs no activation function, so there is no output of one to quantize\n"
        "  where:  --placement relu-output\n"
        "  remedy: use --placement layer-input"
    )
    _, coverage = convert(build(Linear), scheme(placement="layer-input"))
    assert [layer.input_bits for layer in coverage.layers] == [4, 4]


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_no_layers(placement):
    class Nothing(nn.Module):
        def __init__(self):
            super().__init__()
            self.idle = nn.Linear(3, 5)

        def forward(self, x):
            return torch.relu(x).mean((2, 3))

    assert refusal(Nothing(), scheme(placement=placement)) == (
        "the network runs no convolution or linear module\n"
        "  remedy: quantization finds nn.Conv*, nn.ConvTranspose* and nn.Linear modules"
    )


@pytest.mark.parametrize("pattern", ["conv9", "auxiliary", "STEM.0"])
def test_override_that_matches_nothing(pattern):
    overrides = (("head", Bits(8, 8)), (pattern, Bits(4, 4)))
    assert not any(fnmatchcase(name, pattern) for name in ("stem.0", "head"))
    assert refusal(build(Idle), scheme(overrides=overrides)) == (
        f"the override {pattern!r} matches no layer\n"
        "  where:  overrides\n"
        "  remedy: layers are named stem.0, head"
    )


@pytest.mark.parametrize("more", [True, False])
def test_a_forward_pass_that_varies(more):
    class Varying(Net):
        def features(self, x):
            return torch.relu(x) if (len(x) == 3) is more else x

    teacher = build(Varying)
    student, _ = convert(teacher, scheme())
    student(images(2))
    with pytest.raises(NetworkError, match="ran another number of activation functions"):
        student(images(3))
    student(images(2))
    convert(teacher, scheme(placement="layer-input"))[0](images(3))


def test_weights_that_are_computed_are_refused():
    class Doubled(Net):
        def __init__(self):
            super().__init__()
            self.source = nn.Parameter(self.head.weight.detach() / 2)
            del self.head.weight
            self.hook = self.head.register_forward_pre_hook(
                lambda head, _: setattr(head, "weight", 2 * self.source)
            )

        def features(self, x):
            return x

    network = build(Doubled)
    network(images())
    with pytest.raises(NetworkError, match="the weight of head is computed") as caught:
        quantize_network(network, scheme(), images())
    assert "without its hook: layer.weight = torch.nn.Parameter(value)" in caught.value.remedy
    network.hook.remove()
    network.head.weight = nn.Parameter(2 * network.source.detach())
    convert(network, scheme())


def test_errors_of_the_network_leave_no_hooks():
    class Broken(Plain):
        def features(self, x):
            raise ZeroDivisionError

    network = build(Broken)
    with pytest.raises(ZeroDivisionError):
        quantize_network(network, scheme(), images())
    assert hooks(network) == 0
