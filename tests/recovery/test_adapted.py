"""Batch norms with the statistics of the current images."""

import torch
from torch import nn

from dreamquant.recovery.adapted import adapted, statistics_of
from dreamquant.recovery.closed_form import RoundByLeastSquares


def norms_of(network):
    return {name: m for name, m in network.named_modules() if isinstance(m, nn.BatchNorm2d)}


@torch.no_grad()
def test_every_channel_leaves_with_what_weight_and_bias_promise(make_network, pool):
    network, seen, pool = make_network(), {}, 3 * pool
    norms = norms_of(network)
    before = network(pool)
    with adapted((network,), statistics_of(network, pool.split(16))):
        for name, norm in norms.items():
            norm.register_forward_hook(lambda _, x, y, name=name: seen.update({name: y}))
        network(pool)
    for name, norm in norms.items():
        deviation, mean = torch.std_mean(seen[name], (0, 2, 3), correction=0)
        assert torch.allclose(mean, norm.bias, atol=1e-5)
        assert torch.allclose(deviation, norm.weight.abs(), rtol=1e-4)
    assert torch.equal(network(pool), before)


def test_on_images_of_other_statistics_adapting_helps(
    make_network, make_bench, given_images, pool, do
):
    """Images of a third of the contrast: what is solved on them is asked of ordinary ones."""
    faint = 0.3 * pool + 0.5
    errors = {}
    for adapt in (False, True):
        bench = make_bench(make_network(), placement="layer-input", joins=8)
        part = RoundByLeastSquares(count=48, batch=16, damp=0.1, adapt=adapt)
        do(part, bench, given_images(bench, faint))
        with torch.no_grad():
            errors[adapt] = (bench.student(pool) - bench.prepared(pool)).square().mean()
    assert errors[True] < errors[False]
