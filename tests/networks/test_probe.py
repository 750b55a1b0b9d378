from __future__ import annotations

import pytest
from torch import nn

from dreamquant.errors import NetworkError
from dreamquant.networks.load import Network, wrap_module
from dreamquant.networks.probe import batch_norms, require_batch_norm
from dreamquant.networks.spec import InputSpec


def network(*layers: nn.Module) -> Network:
    module = nn.Sequential(*layers, nn.Flatten(), nn.Linear(64, 5))
    return wrap_module(module, InputSpec((1, 8, 8), (0.5,), (0.5,), 5))


def test_batch_norms_are_listed_once_in_order() -> None:
    shared = nn.BatchNorm2d(1)
    module = nn.Sequential(
        shared,
        nn.Sequential(nn.BatchNorm1d(2), shared),
        nn.BatchNorm2d(3, track_running_stats=False),
        nn.GroupNorm(1, 1),
        nn.InstanceNorm2d(1, track_running_stats=True),
        nn.SyncBatchNorm(4),
    )
    assert [name for name, _ in batch_norms(module)] == ["0", "1.0", "5"]
    assert batch_norms(module)[0][1] is shared


def test_a_network_with_statistics_passes() -> None:
    assert require_batch_norm(network(nn.BatchNorm2d(1)), "gdfq") is None


def test_a_network_without_statistics_is_refused() -> None:
    message = "method 'gdfq' needs batch-norm statistics and Sequential has none"
    with pytest.raises(NetworkError, match=message) as e:
        require_batch_norm(network(nn.GroupNorm(1, 1)), "gdfq")
    assert e.value.remedy


def test_batch_norms_that_keep_no_statistics_are_told_apart() -> None:
    idle = nn.BatchNorm2d(1, track_running_stats=False)
    with pytest.raises(NetworkError, match="Sequential has only 1 batch norms that keep none"):
        require_batch_norm(network(idle), "gdfq")
