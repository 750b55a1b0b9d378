"""Random networks are quantized, saved, opened, exported and verified.

``benchmarks/random_networks.py`` does the same with five hundred, by whole runs.
"""

from __future__ import annotations

from functools import partial

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, seed, settings

from dreamquant.export.job import rehearse_export
from dreamquant.quantization.convert import quantize_network
from dreamquant.quantization.scheme import Bits, Scheme
from dreamquant.results.rehearsal import rehearse
from network_plans import PLANS, Plan, build

pytest.importorskip("onnxruntime")


@pytest.mark.parametrize("part", range(4))
def test_random_networks_go_the_whole_way(part: int) -> None:
    tried: list[Plan] = []

    @seed(part)
    @settings(
        max_examples=5,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(PLANS)
    def go(plan: Plan) -> None:
        net = build(plan)
        example = torch.zeros(2, *plan.input.shape)
        scheme = Scheme(Bits(4, 8), placement="layer-input")
        student, _ = quantize_network(net, scheme, example)
        # To draw an ONNX graph takes seconds, whatever the network: one of five is exported.
        last = len(tried) == 4
        rehearse(
            net,
            student,
            scheme,
            example,
            then=partial(rehearse_export, spec=plan.input) if last else None,
        )
        tried.append(plan)

    go()
    assert len(tried) == 5
