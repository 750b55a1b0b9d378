"""Compiled graphs, compared with the networks that they were traced from."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn
from torch._dynamo.exc import TorchDynamoException

from dreamquant.errors import TrainingError
from dreamquant.training import compiled, tracing
from dreamquant.training.compiled import Compiled
from tiny_runs import short_method, tiny_run


@pytest.fixture
def traced(monkeypatch):
    """Graphs are traced and parted, and run as they are: no compiler takes its time."""
    monkeypatch.setattr(tracing, "_compiled", lambda graph, device: graph)


class Two(nn.Module):
    """Two outputs, one without gradient; a buffer that changes; a parameter that nothing reads."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)
        self.norm = nn.BatchNorm1d(2)
        self.unread = nn.Parameter(torch.ones(4))

    def forward(self, x):
        y = self.norm(self.layer(x).relu())
        return y, x.detach().sum()


def two():
    torch.manual_seed(0)
    return Two()


def passes(call, network, x, weight):
    """Outputs, and the gradients of weights and of ``x``, each asked for alone."""
    outputs = call(x)
    loss = (outputs[0] * weight).sum()
    parameters = list(network.parameters())
    to_weights = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    (to_images,) = torch.autograd.grad(loss, x)
    return [o.detach() for o in outputs], to_weights, to_images


@pytest.mark.usefixtures("traced")
def test_outputs_gradients_and_buffers_are_those_of_the_network():
    ours, theirs = two(), two()
    call = Compiled(ours)
    for seed in range(3):
        torch.manual_seed(seed)
        x, weight = torch.randn(5, 3).requires_grad_(), torch.randn(5, 2)
        torch.testing.assert_close(passes(call, ours, x, weight), passes(theirs, theirs, x, weight))
        torch.testing.assert_close(dict(ours.named_buffers()), dict(theirs.named_buffers()))
    assert theirs.norm.num_batches_tracked == 3


@pytest.mark.usefixtures("traced")
def test_an_output_without_gradient_stays_so():
    network = two()
    y, total = Compiled(network)(torch.randn(5, 3))
    assert y.requires_grad
    assert not total.requires_grad


@pytest.mark.usefixtures("traced")
def test_only_the_way_that_is_asked_for_is_gone(monkeypatch):
    network, x = two(), torch.randn(5, 3).requires_grad_()
    y, _ = Compiled(network)(x)
    gone = []
    plainly = tracing._plainly
    monkeypatch.setattr(
        tracing, "_plainly", lambda graph, tensors: gone.append(graph) or plainly(graph, tensors)
    )
    (gradient,) = torch.autograd.grad(y.sum(), x, retain_graph=True)
    assert len(gone) == 1
    torch.autograd.grad(y.sum(), network.layer.weight)
    assert len(gone) == 2
    assert gone[0] is not gone[1]
    operations = [{node.target for node in graph.graph.nodes} for graph in gone]
    # The image's gradient takes one product with the weight; the weight's takes none with it.
    assert gradient.shape == x.shape
    assert len(operations[0]) < len(operations[1])


@pytest.mark.usefixtures("traced")
def test_each_form_of_input_is_traced_once(monkeypatch):
    forms = []
    trace = compiled.trace
    monkeypatch.setattr(
        compiled,
        "trace",
        lambda run, tensors: forms.append(tensors[-1].shape) or trace(run, tensors),
    )
    call = Compiled(two())
    for count in (5, 5, 4, 5, 4):
        call(torch.randn(count, 3))
    assert forms == [(5, 3), (4, 3)]


@pytest.mark.usefixtures("traced")
def test_without_gradients_the_network_itself_is_called(monkeypatch):
    monkeypatch.setattr(compiled, "trace", lambda *_: pytest.fail("traced"))
    network, x = two().eval(), torch.randn(5, 3)
    with torch.no_grad():
        torch.testing.assert_close(Compiled(network)(x), network(x))


@pytest.mark.usefixtures("traced")
def test_a_gradient_may_come_in_another_layout():
    conv = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    x = torch.randn(2, 3, 6, 6).to(memory_format=torch.channels_last).requires_grad_()
    gradient = torch.randn(2, 4, 4, 4)
    found, wanted = (torch.autograd.grad(f(x), x, gradient)[0] for f in (Compiled(conv), conv))
    torch.testing.assert_close(found, wanted)


class ByValue(nn.Module):
    def forward(self, x):
        return x * 2 if x.sum() > 0 else x


@pytest.mark.usefixtures("traced")
def test_a_network_that_chooses_by_values_is_refused():
    with pytest.raises(TrainingError, match="cannot be traced") as e:
        Compiled(ByValue())(torch.ones(3, requires_grad=True))
    assert e.value.where == "--compile"
    assert "leave --compile away" in e.value.remedy


@pytest.mark.parametrize("fails", ["forward", "back"])
def test_a_machine_that_cannot_compile_is_told_so(fails, monkeypatch):
    def broken(*_):
        raise TorchDynamoException("no working C++ compiler")

    # Ways back are made before the forward pass, and run after it.
    made = iter(["back", "forward"])
    monkeypatch.setattr(
        tracing, "_compiled", lambda graph, device: broken if next(made) == fails else graph
    )
    with pytest.raises(TrainingError, match=r"cannot compile .*: no working C\+\+ compiler") as e:
        Compiled(two())(torch.randn(5, 3))[0].sum().backward()
    assert "C++ compiler" in e.value.remedy


@pytest.mark.usefixtures("traced")
def test_what_a_network_runs_out_of_is_not_blamed_on_tracing(monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("full")

    network = two()
    monkeypatch.setattr(network, "forward", full)
    with pytest.raises(torch.OutOfMemoryError):
        Compiled(network)(torch.randn(5, 3))


@pytest.mark.usefixtures("float64", "traced")
@pytest.mark.parametrize(
    ("method", "preset", "placement"),
    [
        ("gdfq", "paper", "relu-output"),
        ("ris", "quick", "relu-output"),
        ("acq", "quick", "layer-input"),
    ],
)
def test_a_compiled_run_is_the_plain_one(method, preset, placement):
    method = short_method(method, preset, alone=1, batch=8)
    plain, fast = (
        tiny_run(method, placement=placement, compile=choice) for choice in (False, True)
    )
    for _ in range(3):
        torch.testing.assert_close(fast.step(), plain.step())
    for player in ("student_parameters", "generator_parameters"):
        torch.testing.assert_close(getattr(fast, player), getattr(plain, player))


@pytest.mark.usefixtures("traced")
def test_a_compiled_step_in_bfloat16_casts_what_the_plain_one_does():
    images = torch.randn(4, 1, 8, 8)
    for player in ("teacher", "student"):
        answers = []
        for choice in (False, True):
            run = tiny_run(short_method("gdfq"), compile=choice).steps(2)
            with torch.autocast("cpu", torch.bfloat16):
                output, values = getattr(run.bench.players, player).read(images)
            answers.append((output, *(vars(value) for value in values.values())))
        assert answers[0][0].dtype == answers[1][0].dtype == torch.float32
        torch.testing.assert_close(answers[1], answers[0])
        in_full, _ = getattr(run.bench.players, player).read(images)
        assert not in_full.equal(answers[0][0])


_REAL = """
import torch
from torch import nn
from dreamquant.training.compiled import Compiled
torch.manual_seed(0)
network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()).eval()
x = torch.randn(2, 3, 8, 8).requires_grad_()
for call in (network, Compiled(network)):
    y = call(x)
    print(y.sum().item(), *(g.abs().sum().item() for g in (
        *torch.autograd.grad(y.sum(), list(network.parameters()), retain_graph=True),
        *torch.autograd.grad(y.sum(), x))))
"""


def test_graphs_compile():
    found = subprocess.run(
        [sys.executable, "-c", _REAL], capture_output=True, text=True, timeout=300, check=False
    )
    assert found.returncode == 0, found.stderr
    plain, fast = ([float(v) for v in line.split()] for line in found.stdout.splitlines())
    assert fast == pytest.approx(plain, rel=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_graphs_are_captured_on_a_gpu():
    method = short_method("adadfq", alone=1, batch=8)
    plain, fast = (tiny_run(method, compile=choice, device="cuda") for choice in (False, True))
    for _ in range(5):
        torch.testing.assert_close(fast.step(), plain.step(), rtol=1e-3, atol=1e-3)
