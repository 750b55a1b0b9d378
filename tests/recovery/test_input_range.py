"""The input's range for features of unknown scale."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from dreamquant.jobs.progress import _found
from dreamquant.networks.spec import InputSpec
from dreamquant.quantization.affine import unsigned_grid
from dreamquant.recovery.input_range import _SEED, CoverScales
from dreamquant.synthesis.procedural import drawn_inputs
from dreamquant.synthesis.suited import Suited

SPEC = InputSpec((6, 10), (0.0,), (1.0,), 4, features=True)


class Normalised(nn.Module):
    """Embeds each frame beside a bias; a layer norm makes large inputs of any scale equal."""

    def __init__(self, bias, norm=True):
        super().__init__()
        torch.manual_seed(3)
        self.embed, self.head = nn.Linear(10, 32), nn.Linear(32, 4)
        self.norm = nn.LayerNorm(32) if norm else nn.Identity()
        nn.init.normal_(self.embed.bias, std=bias)

    def forward(self, x):
        return self.head(self.norm(self.embed(x).relu()).tanh().mean(1))


def covered(make_bench, network, spec=SPEC):
    """The bench after the part has run, with ranges of all quantizers at 5 before, and phases."""
    network = network.eval().requires_grad_(False)
    bench = make_bench(network, "w8a8", placement="layer-input", spec=spec)
    for quantizer in bench.student.activation_quantizers().values():
        quantizer.place(torch.tensor(10 / 255), torch.tensor(128))
    phases = list(CoverScales().phases(bench, None))
    for phase in phases:
        phase.step()
    return bench, phases


def ends(bench):
    return {
        name: round(float(quantizer.scale) * 255 / 2, 2)
        for name, quantizer in bench.student.activation_quantizers().items()
    }


def test_the_range_is_the_one_whose_worst_scale_is_best(make_bench):
    network = Normalised(bias=8.0)
    bench, (phase,) = covered(make_bench, network)
    inputs = drawn_inputs(Suited(), 32, SPEC, torch.Generator().manual_seed(_SEED))

    def kept(wanted, given):
        away = sum((a - b).square().sum() for a, b in zip(wanted, given, strict=True))
        middle = sum(wanted) / len(wanted)
        return 100 * (1 - away / sum((each - middle).square().sum() for each in wanted))

    scale = 1.0
    while kept(network(2 * scale * inputs), network(scale * inputs)) < 80:
        scale *= 2
    assert scale == phase.finding["largest_deviation"] > 1
    scales = [2.0**i for i in range(11) if 2.0**i <= scale]
    found = {}
    for end in (2.0**i for i in range(14)):
        step = 2 * end / unsigned_grid(8).qmax
        least, most = -round(end / step), 255 - round(end / step)
        rounded = [(s * inputs / step).round().clamp(least, most) * step for s in scales]
        found[end] = min(
            kept(network(s * inputs), network(x)) for s, x in zip(scales, rounded, strict=True)
        )
    best = max(found.values())
    assert found[phase.finding["input_range"]] == pytest.approx(best, abs=0.5)
    own = ends(bench)
    assert own.pop("network.embed.input_quantizer") == phase.finding["input_range"]
    assert set(own.values()) == {5.0}


def test_the_terminal_names_the_range(make_bench):
    _, (phase,) = covered(make_bench, Normalised(bias=8.0))
    said = _found(phase.finding)
    assert (
        said
        == f"the input's range ends at {phase.finding['input_range']:.3g}: its scale is not known"
    )


def test_a_network_with_larger_biases_gets_a_wider_range(make_bench):
    narrow, wide = (covered(make_bench, Normalised(bias))[1][0] for bias in (4.0, 64.0))
    assert 4 <= wide.finding["input_range"] / narrow.finding["input_range"] <= 64


def test_images_and_features_of_known_scale_have_no_such_phase(make_bench):
    known = replace(SPEC, centre=(0.0,) * 10, spread=(1.0,) * 10)
    pixels = replace(SPEC, features=False)
    for spec in (known, pixels):
        assert covered(make_bench, Normalised(8.0), spec)[1] == []


def test_the_range_stays_where_the_scale_never_matters(make_bench):
    bench, (phase,) = covered(make_bench, Normalised(bias=0.0))
    assert phase.finding is None
    assert set(ends(bench).values()) == {5.0}


def test_the_range_stays_where_the_scale_always_matters(make_bench):
    class Waves(Normalised):
        def forward(self, x):
            return self.head(torch.sin(20 * self.embed(x))).mean(1)

    bench, (phase,) = covered(make_bench, Waves(1.0))
    assert phase.finding is None
    assert set(ends(bench).values()) == {5.0}
