from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dreamquant.errors import DataError, NetworkError
from dreamquant.networks.failures import naming_lines
from dreamquant.networks.user_file import read_user_file

EXAMPLE = torch.zeros(2, 3)


class Failing(nn.Module):
    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def forward(self, x: Tensor) -> Tensor:
        raise self.error  # here


@pytest.mark.parametrize(
    "error",
    [RuntimeError("no such shape"), NotImplementedError(), RecursionError("deep"), ValueError("x")],
)
def test_a_failing_line_of_the_network_is_named(error: Exception) -> None:
    network = Failing(error)
    with (
        pytest.raises(NetworkError, match=type(error).__name__) as e,
        naming_lines(network, EXAMPLE),
    ):
        network(EXAMPLE)
    _require_line(e.value, "# here")


IN_PLACE = """
from torch import nn

class InPlace(nn.Module):
    def forward(self, x):
        y = x.exp()  # its derivative is its result
        z = y * 1
        y.zero_()
        return z
"""


def test_a_failing_derivative_is_named_by_the_line_it_belongs_to(tmp_path: Path) -> None:
    path = tmp_path / "net.py"
    path.write_text(IN_PLACE)
    network = read_user_file(f"{path}:InPlace", NetworkError).attribute()()
    images = EXAMPLE.clone().requires_grad_()
    with pytest.raises(NetworkError, match="RuntimeError") as e, naming_lines(network, EXAMPLE):
        network(images).sum().backward()
    assert e.value.where == f"{path}:6"


@pytest.mark.parametrize("error", [DataError("no"), KeyboardInterrupt(), RuntimeError("mine")])
def test_other_failures_stay_what_they_are(error: BaseException) -> None:
    with pytest.raises(type(error)) as e, naming_lines(nn.Linear(3, 2), EXAMPLE):
        raise error
    assert e.value is error


def _require_line(error: NetworkError, text: str) -> None:
    file, _, line = error.where.rpartition(":")
    assert Path(file) == Path(__file__)
    assert text in Path(file).read_text().splitlines()[int(line) - 1]
