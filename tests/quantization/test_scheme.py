import dataclasses

import pytest

from dreamquant.errors import SchemeError
from dreamquant.quantization.affine import weight_grid
from dreamquant.quantization.scheme import Bits, Scheme

W4A4 = Bits(4, 4)


def refusal(make, *arguments, **keywords):
    with pytest.raises(SchemeError) as caught:
        make(*arguments, **keywords)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "weight", "activation"),
    [("w4a4", 4, 4), ("W3A5", 3, 5), (" w2a8\n", 2, 8), ("w08a8", 8, 8)],
)
def test_parse(text, weight, activation):
    assert Bits.parse(text) == Bits(weight, activation)


@pytest.mark.parametrize("bits", [Bits(w, a) for w in range(2, 9) for a in range(2, 9)], ids=str)
def test_parse_undoes_str(bits):
    assert Bits.parse(str(bits)) == bits


@pytest.mark.parametrize("text", ["", "4", "w4", "a4", "a4w4", "w4a4x", "w4a-4", "w4.5a4", "w4 a4"])
def test_bad_notation(text):
    assert refusal(Bits.parse, text) == (
        f"{text!r} does not name bits\n"
        "  where:  --bits\n"
        "  remedy: write weights and activations like w4a4 or w8a8"
    )


@pytest.mark.parametrize(("text", "bad"), [("w1a4", 1), ("w4a9", 9), ("w0a4", 0), ("w32a32", 32)])
def test_bits_out_of_range(text, bad):
    assert refusal(Bits.parse, text) == (
        f"{bad} {'bit is' if bad == 1 else 'bits are'} not supported\n"
        f"  where:  --bits {text}\n"
        "  remedy: choose 2 to 8 bits for weights and for activations"
    )


@pytest.mark.parametrize(
    ("field", "choices"),
    [
        ("placement", "relu-output or layer-input or operands"),
        ("ranges", "ema or learned"),
        ("gradient", "straight-through or clipped"),
        ("weights_range", "safe or full"),
    ],
)
def test_bad_choice(field, choices):
    option = field.replace("_", "-")
    assert refusal(Scheme, W4A4, **{field: "somewhere"}) == (
        f"'somewhere' is not a choice\n  where:  --{option}\n  remedy: choose {choices}"
    )


@pytest.mark.parametrize("activation", range(2, 9))
@pytest.mark.parametrize("weight", range(2, 9))
def test_no_two_products_of_a_safe_range_exceed_16_bits(weight, activation):
    bits = Bits(weight, activation)
    scheme = Scheme(bits)
    grid = weight_grid(weight, scheme.weights_reach(bits))
    # What a kernel multiplies: codes less zero-points, which lie anywhere on an asymmetric grid.
    farthest = grid.qmax if grid.qmin == -grid.qmax else grid.levels
    assert 2 * farthest * (2**activation - 1) <= 2**15 - 1
    full = weight_grid(weight, Scheme(bits, weights_range="full").weights_reach(bits))
    assert (grid != full) == (weight in scheme.narrowed_bits())
    assert (grid != full) == (activation == 8 and weight >= 7)


@pytest.mark.parametrize(
    ("scheme", "narrowed"),
    [
        (Scheme(W4A4), ()),
        (Scheme(W4A4, first_last_bits=8), ()),  # that concerns weights alone
        (Scheme(W4A4, "layer-input", first_last_bits=8), (8,)),
        (Scheme(W4A4, overrides=(("head", Bits(8, 8)),)), ()),
        (Scheme(Bits(4, 8), overrides=(("head", Bits(8, 4)),)), (8,)),
        (Scheme(Bits(7, 4), "layer-input", joins=8), (7,)),  # the image has 8 bits
        (Scheme(Bits(8, 8), weights_range="full"), ()),
    ],
)
def test_weights_whose_range_is_narrowed(scheme, narrowed):
    assert scheme.narrowed_bits() == narrowed


@pytest.mark.parametrize("bits", [1, 9])
def test_first_and_last_out_of_range(bits):
    assert f"{bits} bit" in refusal(Scheme, W4A4, first_last_bits=bits)
    assert "not supported" in refusal(Scheme, W4A4, first_last_bits=bits)


@pytest.mark.parametrize(
    ("layer", "end", "expected"),
    [
        ("conv", None, "w4a4"),
        ("conv", "first", "w8a8"),
        ("layer1.0", None, "w3a3"),
        ("layer1.0", "first", "w3a3"),  # what is named goes before what is first
        ("layer1.0.conv2", None, "w2a5"),  # the last pattern that matches
        ("head", "last", "w6a6"),
        ("Head", "last", "w8a8"),
    ],
)
def test_bits_of(layer, end, expected):
    overrides = (("layer1.*", Bits(3, 3)), ("*.conv?", Bits(2, 5)), ("head", Bits(6, 6)))
    scheme = Scheme(W4A4, first_last_bits=8, overrides=overrides)
    assert str(scheme.bits_of(layer, first=end == "first", last=end == "last")) == expected


def test_first_and_last_are_like_the_others_unless_asked():
    assert Scheme(W4A4).bits_of("conv", first=True, last=True) == W4A4


@pytest.mark.parametrize(
    ("bits", "options", "expected"),
    [
        ("w4a4", {}, "w4a8"),
        ("w4a8", {"joins": 6}, "w4a8"),
        ("w4a4", {"first_last_bits": 6}, "w6a6"),
        ("w4a4", {"overrides": (("stem", Bits(3, 3)),)}, "w3a3"),
    ],
)
def test_the_image_has_the_bits_of_what_is_stored(bits, options, expected):
    scheme = Scheme(Bits.parse(bits), "layer-input", **{"joins": 8, **options})
    assert str(scheme.bits_of("stem", first=True, last=False)) == expected
    assert scheme.bits_of("conv", first=False, last=False) == Bits.parse(bits)


@pytest.mark.parametrize(
    ("ranges", "gradient", "clips"),
    [
        ("ema", "straight-through", False),
        ("ema", "clipped", True),
        ("learned", "straight-through", True),
        ("learned", "clipped", True),
    ],
)
def test_learned_ranges_clip(ranges, gradient, clips):
    assert Scheme(W4A4, ranges=ranges, gradient=gradient).clips_gradient is clips


def test_schemes_cannot_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Scheme(W4A4).bits = Bits(2, 2)
