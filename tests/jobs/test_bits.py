"""``--bits auto``: bits of each layer's weights by a size or an agreement."""

from __future__ import annotations

import pytest
import torch

import dreamquant
from dreamquant.errors import SchemeError
from dreamquant.evaluation.sensitivity import sensitivity
from dreamquant.networks import demo
from dreamquant.report.read import read_record
from dreamquant.report.render import render
from dreamquant.text import parse_points, parse_size


@pytest.fixture(scope="module")
def chosen(tmp_path_factory):
    out = tmp_path_factory.mktemp("chosen") / "out"
    options = {"size": "60kB", "out": out, "device": "cpu", "quiet": True}
    return dreamquant.quantize(demo.teacher(), "auto", "squant", **options), out


def test_the_result_keeps_within_the_size_and_mixes_bits(chosen) -> None:
    result, _ = chosen
    coverage = result.manifest["coverage"]
    kinds = ("weight_bytes", "scale_bytes", "float_bytes")
    assert sum(coverage[kind] for kind in kinds) <= 60_000
    assert len({layer["weight_bits"] for layer in coverage["layers"]}) > 1
    record = result.manifest["bits_chosen"]
    assert result.manifest["protocol"]["bits"] == f"w{record['mean']:.2f}a8"
    assert record["bytes"] <= 60_000


def test_the_report_offers_the_other_points(chosen) -> None:
    result, out = chosen
    page = render(read_record(out))
    for point in result.manifest["bits_chosen"]["curve"]:
        assert f"--size {point['bytes']}B" in page
    assert "bits on average, chosen layer by layer" in page


def test_a_drop_takes_the_smallest_point_that_keeps_it(chosen) -> None:
    result = dreamquant.quantize(
        demo.teacher(), "auto", "squant", max_drop="5", device="cpu", quiet=True
    )
    record = result.manifest["bits_chosen"]
    taken = next(each for each in record["curve"] if each["bytes"] == record["bytes"])
    assert taken["agreement"] >= 95
    smaller = [each for each in record["curve"] if each["bytes"] < record["bytes"]]
    assert all(each["agreement"] < 95 for each in smaller)


def test_damage_is_that_of_one_layer_alone_and_leaves_the_network() -> None:
    network = demo.teacher().module
    before = {name: each.clone() for name, each in network.state_dict().items()}
    x = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    names = [name for name, part in network.named_modules() if isinstance(part, torch.nn.Conv2d)]
    found = sensitivity(network, names[:2], (2, 4, 8), x)
    assert found.damage.shape == found.sizes.shape == (2, 3)
    assert (found.damage[:, 0] > found.damage[:, 2]).all()
    after = network.state_dict()
    assert all(torch.equal(after[name], each) for name, each in before.items())


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"bits": "auto"}, "bits are chosen by one goal"),
        ({"bits": "auto", "size": "1MB", "max_drop": "1"}, "bits are chosen by one goal"),
        ({"bits": "w4a4", "size": "1MB"}, "a goal chooses bits"),
        ({"bits": "auto", "size": "1 apple"}, "is no size"),
        ({"bits": "auto", "max_drop": "many"}, "is no number of points"),
        ({"bits": "auto", "size": "100B"}, "take at least"),
        ({"bits": "auto", "max_drop": "0", "override": ("*=w2a8",)}, "are lost already"),
    ],
)
def test_what_cannot_be_chosen_is_refused(options, what) -> None:
    with pytest.raises(SchemeError, match=what):
        dreamquant.quantize(demo.teacher(), method="squant", quiet=True, device="cpu", **options)


def test_sizes_and_points_are_read() -> None:
    sizes = [parse_size(text) for text in ("12B", "1.5 kB", "2MB", "1MiB")]
    assert sizes == [12, 1500, 2_000_000, 2**20]
    assert parse_points("0.5") == 0.5
