"""Runs of ZAQ: alternation, batch norms in training mode, networks without them, other tasks."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dreamquant import quantize
from dreamquant.errors import NetworkError
from dreamquant.methods import find_method
from dreamquant.methods.any_output import for_task
from dreamquant.networks.load import wrap_module
from dreamquant.networks.probe import batch_norms
from dreamquant.networks.spec import InputSpec
from dreamquant.networks.stage_maps import StageMaps
from tiny_runs import IMAGE as SHAPE
from tiny_runs import short_method, tiny_network, tiny_run

IMAGE = InputSpec((3, 8, 8), (0.0,) * 3, (1.0,) * 3, 5)


def stored(run):
    norms = batch_norms(run.student.network)
    return torch.cat([norm.running_mean for _, norm in norms])


def without_norms():
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 6, 3, stride=2), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.ReLU(), nn.Flatten())
    return nn.Sequential(*layers, nn.Linear(8, 5)).eval()


def test_the_student_learns_from_five_batches_and_the_generator_from_the_last() -> None:
    run = tiny_run(short_method("zaq", train={"turns": 5}))
    run.steps(2)  # the generator alone
    before, alone = stored(run), run.images.done
    run.step()
    assert run.images.done == alone + 1
    assert run.run.phase.learner.done == 5
    assert not stored(run).equal(before)
    assert not any(norm.training for _, norm in batch_norms(run.student.network))


def test_stored_statistics_stay_where_the_student_normalises_by_them() -> None:
    run = tiny_run(short_method("zaq", train={"norms": "stored"}))
    before = stored(run)
    run.to_the_end()
    assert stored(run).equal(before)


def test_one_turn_equals_an_iteration_of_other_methods() -> None:
    losses = [
        tiny_run(short_method("gdfq", train=train)).steps(4).step()
        for train in ({}, {"turns": 1, "norms": "stored"})
    ]
    assert losses[0] == losses[1]


def test_a_network_without_batch_norm_goes_through() -> None:
    network = wrap_module(without_norms(), IMAGE)
    options = {"iterations": 4, "device": "cpu", "quiet": True}
    result = quantize(network, "w4a4", "zaq", **options)
    assert 0 <= result.manifest["agreement"]["percent"] <= 100


def test_outputs_of_any_task_serve() -> None:
    method = find_method("zaq").resolved("quick", (3, 8, 8))
    assert for_task(method, "regression") == method


def test_a_network_without_feature_maps_is_refused() -> None:
    flat = nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.ReLU(), nn.Linear(16, 5)).eval()
    with pytest.raises(NetworkError, match="no module of the network returns one"):
        StageMaps().require(flat, torch.zeros(2, 3, 8, 8))


def test_maps_are_the_last_of_each_size_in_the_order_executed() -> None:
    network = tiny_network()
    images = torch.randn(2, *SHAPE)
    with torch.no_grad(), StageMaps().watch(network) as collected:
        network(images)
    sizes = [tuple(each.shape[2:]) for each in collected()]
    assert len(set(sizes)) == len(sizes)
    assert all(size != (1, 1) for size in sizes)
    x, wanted = images, {}
    with torch.no_grad():
        for module in network:
            x = module(x)
            if x.dim() == 4 and x.shape[2:] != (1, 1):
                wanted[tuple(x.shape[2:])] = x
    for size, found in zip(sizes, collected(), strict=True):
        torch.testing.assert_close(found, wanted[size])


def test_tokens_are_maps_of_one_column() -> None:
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Linear(4, 6)

        def forward(self, x):
            return self.embed(x.flatten(2).transpose(1, 2)).mean(1)

    tokens = Tokens()
    with StageMaps().watch(tokens) as collected:
        tokens(torch.randn(2, 4, 5, 5))
    (found,) = collected()
    assert found.shape == (2, 6, 25, 1)
