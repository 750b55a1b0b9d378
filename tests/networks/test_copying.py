from __future__ import annotations

import threading

import pytest
import torch
from torch import nn
from torch.nn.utils import weight_norm

from dreamquant.errors import NetworkError
from dreamquant.networks.copying import own_copy


class Holding(nn.Module):
    """Keeps results of a step in a buffer, an attribute and a list."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(2))
        self.register_buffer("seen", self.scale * 2)
        self.kept = self.scale * 3
        self.listed = [self.kept]


def test_results_of_a_step_are_copied_by_value() -> None:
    given = Holding()
    copied = own_copy(given)
    assert torch.equal(copied.seen, torch.full((2,), 2.0))
    assert copied.kept is copied.listed[0]
    assert copied.kept is not given.kept
    assert copied.kept.is_leaf
    assert not given.kept.is_leaf


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated")
def test_a_network_of_computed_weights_is_copied_after_a_training_step() -> None:
    given = weight_norm(nn.Linear(3, 2))
    given(torch.ones(1, 3)).sum().backward()
    x = torch.ones(1, 3)
    assert torch.equal(own_copy(given)(x), given(x))


def test_what_cannot_be_copied_is_named_and_the_remedy_works() -> None:
    given = nn.Sequential(nn.Linear(2, 2))
    given[0].lock = threading.Lock()
    with pytest.raises(NetworkError, match="Sequential cannot be copied: ") as e:
        own_copy(given)
    assert e.value.where == "its attribute 0.lock, of type lock"
    assert "set that attribute to None" in e.value.remedy
    given[0].lock = None
    own_copy(given)
