import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from dreamquant.errors import ResultError
from dreamquant.quantization.convert import quantize_network
from dreamquant.quantization.scheme import Bits, Scheme
from dreamquant.results.files import read_tensors, write_tensors
from dreamquant.results.student import decode, encode

PLACEMENTS = ("relu-output", "layer-input")


class Net(nn.Module):
    """Some of everything: depthwise, transposed, two names for one layer, one that never runs."""

    def __init__(self, width=6):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.depthwise = nn.Conv2d(width, width, 3, groups=width)
        self.up = nn.ConvTranspose2d(width, 5, 2)
        self.one = self.other = nn.Conv2d(5, 5, 1)
        self.idle = nn.Linear(7, 3)
        self.head = nn.Linear(5, 4)

    def forward(self, x):
        x = torch.relu(self.up(torch.relu(self.depthwise(torch.relu(self.norm(self.stem(x)))))))
        x = torch.relu(self.other(torch.relu(self.one(x))))
        return self.head(x.mean((2, 3)))


def build(seed=0, **options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Net(**options).eval()
        network.norm.running_mean.normal_()
        network.norm.running_var.uniform_(0.5, 2)
        return network


def images(count=3):
    return torch.randn((count, 3, 8, 8), generator=torch.Generator().manual_seed(1))


def scheme(bits="w4a4", placement="relu-output", **options):
    return Scheme(Bits.parse(bits), placement, **options)


def converted(scheme, seed=0, **options):
    return quantize_network(build(seed, **options), scheme, torch.zeros(2, 3, 8, 8))


def trained(scheme, seed=0):
    """A student as training leaves it: weights moved, ranges set, all on its grids."""
    student, _ = converted(scheme, seed)
    student.observe(True)
    with torch.no_grad():
        student(images())
        for latent, _ in student.quantized_weights().values():
            latent.mul_(1.1)
    student.fix()
    return student


MIXES = [
    *({"bits": f"w{w}a{10 - w}"} for w in range(2, 9)),
    {"bits": "w3a3", "first_last_bits": 8},
    {"bits": "w8a8", "first_last_bits": 2},
    {"bits": "w4a4", "overrides": (("*", Bits(5, 3)), ("up", Bits(7, 8)))},
    {"bits": "w4a4", "ranges": "learned"},
]


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("mix", MIXES, ids=str)
def test_decode_gives_back_the_same_outputs(mix, placement):
    chosen = scheme(placement=placement, **mix)
    student = trained(chosen)
    tensors = encode(student)
    kept = {name: tensor.clone() for name, tensor in tensors.items()}
    # Into an architecture whose own weights do not matter.
    other, _ = converted(chosen, seed=5)
    decode(other, tensors, "x")
    with torch.no_grad():
        assert torch.equal(other(images()), student(images()))
    again = encode(other)
    assert list(again) == list(tensors) == sorted(tensors)
    assert all(torch.equal(again[name], kept[name]) for name in kept)
    assert all(torch.equal(tensors[name], kept[name]) for name in kept)


def test_what_is_stored():
    stored = {name: (str(t.dtype), tuple(t.shape)) for name, t in encode(trained(scheme())).items()}
    layers = {"stem": (162, 6), "depthwise": (54, 6), "up": (120, 5), "one": (25, 5)}
    expected = {}
    for name, (weights, channels) in {**layers, "head": (20, 4)}.items():
        expected[f"{name}.weight.codes"] = ("torch.uint8", (math.ceil(weights / 2),))
        expected[f"{name}.weight.scale"] = ("torch.float32", (channels,))
        expected[f"{name}.weight.zero_point"] = ("torch.int8", (channels,))
    for relu in range(5):
        expected[f"relu_outputs.{relu}.scale"] = ("torch.float32", ())
        expected[f"relu_outputs.{relu}.zero_point"] = ("torch.uint8", ())
    floats = {
        **{f"norm.{name}": (6,) for name in ("weight", "bias", "running_mean", "running_var")},
        **{"depthwise.bias": (6,), "up.bias": (5,), "one.bias": (5,), "other.bias": (5,)},
        **{"head.bias": (4,), "idle.weight": (3, 7), "idle.bias": (3,)},
    }
    expected |= {name: ("torch.float32", shape) for name, shape in floats.items()}
    assert stored == {**expected, "norm.num_batches_tracked": ("torch.int64", ())}


def test_layer_inputs_are_stored_by_layer():
    stored = encode(trained(scheme(placement="layer-input")))
    names = {name for name in stored if ".input." in name}
    assert names == {
        f"{layer}.input.{part}"
        for layer in ("stem", "depthwise", "up", "one", "head")
        for part in ("scale", "zero_point")
    }
    assert not any(name.startswith("relu_outputs") for name in stored)


@pytest.mark.parametrize("bits", range(2, 9))
def test_weights_can_be_computed_from_the_bytes_alone(bits):
    student = trained(scheme(f"w{bits}a4"))
    tensors = {name: tensor.numpy() for name, tensor in encode(student).items()}
    for name, axis, shape in (("stem", 0, (6, 3, 3, 3)), ("up", 1, (6, 5, 2, 2))):
        stream = int.from_bytes(tensors[f"{name}.weight.codes"].tobytes(), "little")
        count = math.prod(shape)
        codes = np.array([(stream >> (bits * i)) % 2**bits for i in range(count)], np.int64)
        column = [-1 if i == axis else 1 for i in range(4)]
        zero_point = tensors[f"{name}.weight.zero_point"].astype(np.int64).reshape(column)
        steps = codes.reshape(shape) - 2 ** (bits - 1) - zero_point
        weight = steps.astype(np.float32) * tensors[f"{name}.weight.scale"].reshape(column)
        found = student.network.get_submodule(name).weight.detach().numpy()
        assert np.array_equal(found, weight)


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("mix", MIXES, ids=str)
def test_coverage_counts_the_bytes_really_stored(mix, placement):
    chosen = scheme(placement=placement, **mix)
    _, coverage = converted(chosen)
    size = {name: tensor.nbytes for name, tensor in encode(trained(chosen)).items()}
    codes = sum(count for name, count in size.items() if name.endswith(".weight.codes"))
    scales = sum(c for name, c in size.items() if name.endswith((".scale", ".zero_point")))
    assert coverage.weight_bytes == codes
    assert coverage.scale_bytes == scales
    assert coverage.float_bytes == sum(size.values()) - codes - scales


def test_four_bits_take_half_a_byte():
    _, coverage = converted(scheme("w4a4"))
    # 162 + 54 + 120 + 25 + 20 weights; those of each layer begin a new byte.
    assert coverage.weight_bytes == 81 + 27 + 60 + 13 + 10


def test_equal_students_give_equal_bytes(tmp_path):
    def saved(name, seed):
        write_tensors(tmp_path / name, encode(trained(scheme(), seed)), {"format": "1"})
        return (tmp_path / name).read_bytes()

    assert saved("a", 0) == saved("b", 0)
    assert saved("c", 1) != saved("a", 0)
    student, _ = converted(scheme())
    decode(student, read_tensors(tmp_path / "a")[0], "x")
    write_tensors(tmp_path / "d", encode(student), {"format": "1"})
    assert (tmp_path / "d").read_bytes() == (tmp_path / "a").read_bytes()


def test_a_student_that_still_takes_gradients_can_be_filled():
    tensors = encode(trained(scheme(ranges="learned")))
    student, _ = converted(scheme(ranges="learned"))
    assert any(p.requires_grad for p in student.parameters())
    decode(student, tensors, "x")


def changed(name, value):
    """A change of the stored tensors: another tensor, none, or one more."""

    def change(tensors):
        tensors.pop(name, None)
        if value is not None:
            tensors[name] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (changed("stem.weight.codes", None), "stem.weight.codes is missing instead of uint8 (81,)"),
        (changed("up.weight.scale", None), "up.weight.scale is missing instead of float32 (5,)"),
        (changed("up.weight.zero_point", None), "up.weight.zero_point is missing"),
        (changed("relu_outputs.2.scale", None), "relu_outputs.2.scale is missing"),
        (changed("relu_outputs.4.zero_point", None), "relu_outputs.4.zero_point is missing"),
        (changed("norm.running_var", None), "norm.running_var is missing"),
        (changed("idle.weight", None), "idle.weight is missing instead of float32 (3, 7)"),
        (changed("more", torch.zeros(2)), "more is float32 (2,) instead of absent"),
        (changed("relu_outputs.5.scale", torch.ones(())), "relu_outputs.5.scale is float32 ()"),
        (
            changed("stem.parametrizations.weight.original", torch.zeros(6, 3, 3, 3)),
            "stem.parametrizations.weight.original is float32 (6, 3, 3, 3) instead of absent",
        ),
        (
            changed("stem.weight.codes", torch.zeros(82, dtype=torch.uint8)),
            "stem.weight.codes is uint8 (82,) instead of uint8 (81,)",
        ),
        (changed("stem.weight.codes", torch.zeros(81)), "is float32 (81,) instead of uint8 (81,)"),
        (changed("up.weight.scale", torch.ones(1)), "up.weight.scale is float32 (1,)"),
        (changed("up.weight.scale", torch.ones(5).double()), "float64 (5,) instead of float32"),
        (changed("relu_outputs.0.scale", torch.ones(1)), "is float32 (1,) instead of float32 ()"),
        (changed("norm.running_var", torch.ones(7)), "norm.running_var is float32 (7,)"),
        (changed("head.bias", torch.ones(1)), "head.bias is float32 (1,) instead of float32 (4,)"),
    ],
)
def test_tensors_that_do_not_fit(change, message):
    tensors = encode(trained(scheme()))
    change(tensors)
    student, _ = converted(scheme())
    before = copy.deepcopy(student.state_dict())
    with pytest.raises(ResultError) as caught:
        decode(student, tensors, "folder/student.safetensors")
    text = str(caught.value)
    assert text.startswith("the saved student does not fit its network: ")
    assert message in text
    assert text.endswith(
        "\n  where:  folder/student.safetensors"
        "\n  remedy: load it with the code of the network that it was made from"
    )
    assert all(torch.equal(tensor, before[name]) for name, tensor in student.state_dict().items())


@pytest.mark.parametrize(
    ("other", "options"),
    [
        (scheme("w5a4"), {}),
        (scheme("w4a4", "layer-input"), {}),
        (scheme("w4a4", first_last_bits=8), {}),
        (scheme("w4a4"), {"width": 7}),
    ],
)
def test_another_scheme_or_network(other, options):
    student, _ = converted(other, **options)
    with pytest.raises(ResultError, match="does not fit its network"):
        decode(student, encode(trained(scheme("w4a4"))), "x")


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_bits_of_activations_do_not_change_the_file(placement):
    # They are the scheme's: the file holds scales and zero-points alone.
    names = [list(encode(trained(scheme(bits, placement)))) for bits in ("w4a4", "w4a8")]
    assert names[0] == names[1]
