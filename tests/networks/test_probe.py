from __future__ import annotations

from torch import nn

from dreamquant.networks.probe import batch_norms


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
