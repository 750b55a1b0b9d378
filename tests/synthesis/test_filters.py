"""GenQ's filters of given pictures, compared with batches that are measured one by one."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from dreamquant import quantize
from dreamquant.errors import DataError, MethodError
from dreamquant.networks import demo
from dreamquant.networks.norm_inputs import BatchNormInputs
from dreamquant.synthesis.filters import ChosenRows, energies, filtered, sensitivities
from dreamquant.synthesis.given import Given
from dreamquant.training.watched import Watched
from tiny_runs import IMAGE, tiny_network

EXAMPLE = torch.zeros(2, *IMAGE)


class InMemory:
    targets = None

    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def read(self, rows):
        return self.images[list(rows)]


def given(images):
    return Given("pictures", "x", len(images), "sha", InMemory(images))


def distance(network, images):
    """Of a batch, from its own moments."""
    tap = BatchNormInputs()
    with torch.no_grad():
        _, read = Watched(network, EXAMPLE.double(), (tap,)).read(images)
    gaps = [
        ((each.mean - each.stored_mean) ** 2).mean() + ((each.var - each.stored_var) ** 2).mean()
        for each in read[tap].layers
    ]
    return (sum(gaps) / len(gaps)).item()


def test_energy_is_the_equation() -> None:
    logits = torch.randn(3, 5).double()
    wanted = [-math.log(sum(math.exp(z) for z in row)) for row in logits.tolist()]
    assert energies(logits).tolist() == pytest.approx(wanted)


def test_a_sensitivity_is_what_a_picture_adds_to_the_distance() -> None:
    network = tiny_network().double()
    images = torch.randn(6, *IMAGE, generator=torch.Generator().manual_seed(0)).double()
    tap = BatchNormInputs(per_image=True)
    with torch.no_grad():
        _, read = Watched(network, EXAMPLE.double(), (tap,)).read(images)
    found = sensitivities(read[tap]).tolist()
    whole = distance(network, images)
    for i in range(6):
        rest = torch.cat([images[:i], images[i + 1 :]])
        # Taps read in float32.
        assert found[i] == pytest.approx(whole - distance(network, rest), rel=1e-3, abs=1e-5)


def test_pictures_that_are_unlike_the_rest_are_dropped() -> None:
    network = tiny_network()
    images = torch.randn(40, *IMAGE, generator=torch.Generator().manual_seed(0))
    images[7] *= 50
    kept = filtered(given(images), network, EXAMPLE, 1.0)
    assert 0 < kept.size < 40
    assert 7 not in kept.rows.chosen
    assert list(kept.rows.chosen) == sorted(kept.rows.chosen)
    assert kept.rows.read([0]).equal(images[[kept.rows.chosen[0]]])


def test_without_batch_norm_the_surest_fraction_stays() -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(math.prod(IMAGE), 5)).eval()
    images = torch.randn(20, *IMAGE)
    with torch.no_grad():
        order = energies(network(images)).argsort()[:5].tolist()
    kept = filtered(given(images), network, EXAMPLE, 0.25)
    assert list(kept.rows.chosen) == sorted(order)


def test_rows_on_record_keep_their_targets() -> None:
    rows = InMemory(torch.randn(4, *IMAGE))
    rows.targets = torch.tensor([3, 1, 2, 0])
    assert ChosenRows(rows, (3, 1)).targets.tolist() == [0, 1]


@pytest.fixture
def pictures(tmp_path):
    path = tmp_path / "given.npz"
    random = np.random.default_rng(0)
    np.savez(path, images=random.integers(0, 255, (40, 8, 8), dtype=np.uint8))
    return str(path)


def test_the_protocol_says_how_many_were_kept(pictures) -> None:
    options = {"device": "cpu", "quiet": True, "images": pictures}
    result = quantize(demo.teacher(), "w8a8", "zeroq", select=0.5, **options)
    told = result.manifest["protocol"]["images"]
    assert told.startswith("given, ")
    assert told.endswith(" of 40 files that pass the filters at 0.5")
    assert 1 <= int(told.split()[1]) <= 20


@pytest.mark.parametrize(
    ("select", "images", "message"),
    [
        (0.5, False, "chooses from pictures that you give, and none are given"),
        (0.0, True, "more than 0 and at most 1"),
        (1.5, True, "more than 0 and at most 1"),
    ],
)
def test_what_cannot_be_selected_is_refused(select, images, message, pictures) -> None:
    options = {"device": "cpu", "quiet": True, "images": pictures if images else None}
    with pytest.raises(MethodError, match=message):
        quantize(demo.teacher(), "w8a8", "zeroq", select=select, **options)


def test_nothing_left_is_an_error(monkeypatch) -> None:
    monkeypatch.setattr(
        "dreamquant.synthesis.filters.sensitivities", lambda s: torch.ones(len(s.mean))
    )
    with pytest.raises(DataError, match="none of the 8 pictures passes"):
        filtered(given(torch.randn(8, *IMAGE)), tiny_network(), EXAMPLE, 1.0)
