"""Failures at the end of a run are found before it begins."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dreamquant.errors import ExportError, NetworkError
from dreamquant.quantization.convert import quantize_network
from dreamquant.quantization.scheme import Bits, Scheme
from dreamquant.results.rehearsal import rehearse

SCHEMES = {
    "relu-output": Scheme(Bits(3, 3)),
    "layer-input": Scheme(Bits(8, 8), "layer-input", ranges="learned"),
    "element-wise": Scheme(Bits(4, 4), "layer-input", joins=8),
}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.conv, self.head = nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8, 5)

    def forward(self, x):
        x = F.relu(self.norm(self.stem(x)), inplace=True)
        return self.head((x + self.conv(x)).mean((2, 3)))


def rehearsed(network, scheme, **options):
    torch.manual_seed(0)
    teacher, example = network().eval(), torch.zeros(2, 3, 8, 8)
    student, _ = quantize_network(teacher, scheme, example)
    before = {name: value.clone() for name, value in student.state_dict().items()}
    rehearse(teacher, student, scheme, example, **options)
    return student, before


@pytest.mark.parametrize("reestimate", [False, True])
@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
def test_a_sound_network_passes_and_its_student_is_as_before(scheme, reestimate):
    student, before = rehearsed(Net, scheme, reestimate=reestimate)
    assert all(value.equal(before[name]) for name, value in student.state_dict().items())
    assert all(parameter.requires_grad for parameter in student.parameters())


def test_it_draws_no_number_of_the_run():
    torch.manual_seed(0)
    teacher, scheme, example = Net().eval(), SCHEMES["relu-output"], torch.zeros(2, 3, 8, 8)
    student, _ = quantize_network(teacher, scheme, example)
    before = torch.get_rng_state()
    rehearse(teacher, student, scheme, example, reestimate=True)
    assert torch.equal(torch.get_rng_state(), before)


def test_what_comes_last_gets_the_student_fixed():
    seen = []
    rehearsed(Net, SCHEMES["relu-output"], then=seen.append)
    assert not any(parameter.requires_grad for parameter in seen[0].parameters())


class Undifferentiable(Net):
    def forward(self, x):
        # Rounded in place: what the derivative of the square needs is gone.
        x = self.norm(self.stem(x))
        y = x.exp()
        x = F.relu(y) + y.square()
        y.add_(1)
        return self.head(x.mean((2, 3)))


class Counting(Net):
    """It answers otherwise each time it is called."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return super().forward(x) + self.calls


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (Undifferentiable, "test_rehearsal.py fails while training"),
        (Counting, "outputs change after it is saved and opened"),
    ],
)
def test_what_would_fail_later_is_told_now(network, words):
    with pytest.raises(NetworkError, match=words):
        rehearsed(network, SCHEMES["relu-output"])


class EarlyExit(Net):
    """It goes another way for images that no noise is like."""

    def forward(self, x):
        bright = x[0, 0, 0, 0] > 2
        x = F.relu(self.norm(self.stem(x)))
        return self.head((x if bright else F.relu(x + self.conv(x))).mean((2, 3)))


@pytest.mark.parametrize("name", ["relu-output", "element-wise"])
def test_control_flow_that_depends_on_the_images_is_told_now(name):
    with pytest.raises(NetworkError, match="another number of"):
        rehearsed(EarlyExit, SCHEMES[name])
    rehearsed(EarlyExit, SCHEMES["layer-input"])


def test_failures_that_have_words_keep_them():
    def fail(_):
        raise ExportError("no such operation", where="here")

    with pytest.raises(ExportError, match="no such operation"):
        rehearsed(Net, SCHEMES["relu-output"], then=fail)
