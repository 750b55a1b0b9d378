"""A small residual network, and runs of methods with stored images on it that take milliseconds."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from dreamquant import InputSpec
from dreamquant.jobs.bench import begin, set_up
from dreamquant.jobs.run_request import RunRequest
from dreamquant.methods.method import Method, Paper
from dreamquant.networks.load import Network
from dreamquant.quantization.convert import quantize_network
from dreamquant.quantization.scheme import Bits, Scheme
from dreamquant.training.batch import Batch
from dreamquant.training.rng import Rng
from dreamquant.training.step import Players, Step
from dreamquant.training.watched import Watched

SPEC = InputSpec(shape=(3, 8, 8), mean=(0.5, 0.4, 0.3), std=(0.25,) * 3, num_classes=5)


class Block(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x):
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(out + x)


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.bn = nn.BatchNorm2d(6)
        self.blocks = nn.Sequential(Block(6), Block(6))
        self.head = nn.Linear(6, SPEC.num_classes)

    def forward(self, x):
        x = self.blocks(F.relu(self.bn(self.stem(x))))
        return self.head(x.mean((2, 3)))


def small_network(seed=0):
    """With statistics as if it had been trained."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = Small()
        for norm in network.modules():
            if isinstance(norm, nn.BatchNorm2d):
                nn.init.normal_(norm.running_mean, std=0.3)
                nn.init.uniform_(norm.running_var, 0.2, 1.5)
                nn.init.uniform_(norm.weight, 0.7, 1.3)
                nn.init.normal_(norm.bias, std=0.3)
        nn.init.normal_(network.head.weight, std=2.0)
    return network.eval().requires_grad_(False)


def method_of(images, *recovery, **scheme):
    """A method of these parts that nobody published."""
    paper = Paper("", "", "", "", "")
    return Method("mine", "", paper, images, recovery, scheme=scheme)


def bench_of(method, *, seed=0, bits="w3a3", network=None, spec=SPEC):
    """A bench for a method without presets."""
    module = small_network() if network is None else network
    teacher = Network("small", module, spec, "given", "", None)
    scheme = Scheme(Bits.parse(bits), **method.scheme)
    student, _ = quantize_network(module, scheme, torch.zeros(2, *spec.shape))
    request = RunRequest(seed=seed, device="cpu", precision="32")
    return set_up(teacher, module, student, method, request, request.accelerator())


def run_of(method, **choices):
    """A fresh run and its images."""
    return begin(bench_of(method, **choices), method)


def advance(run, count=None):
    """So many steps of a run, by default all; the losses of each."""
    steps = run.steps()
    if count is None:
        return [plain(losses) for losses in steps]
    return [plain(next(steps)) for _ in range(count)]


def plain(losses):
    return {name: float(value) for name, value in losses.items()}


def bytes_of(state):
    """A nested state as comparable values, tensors bit by bit."""
    if isinstance(state, torch.Tensor):
        return state.dtype, tuple(state.shape), state.detach().contiguous().numpy().tobytes()
    if isinstance(state, dict):
        return {key: bytes_of(value) for key, value in state.items()}
    if isinstance(state, list):
        return [bytes_of(value) for value in state]
    return state


def step_on(term, images, *, student=None, targets=None, teacher=None, seed=0):
    """What a term sees of images, on real networks and with what it declares."""
    teacher = small_network() if teacher is None else teacher
    student = teacher if student is None else student
    example = torch.zeros(2, *SPEC.shape)
    players = Players(
        Watched(teacher, example, term.teacher_taps), Watched(student, example, term.student_taps)
    )
    labels = torch.zeros(len(images), dtype=torch.int64) if targets is None else targets
    batch = Batch(images, labels, torch.arange(len(images)))
    rng = Rng.seeded(seed, images.device)
    return Step(batch, players, rng, student_learns=True).seen_by(term)


def images_of(count, seed=1):
    """Random images of the small network's shape."""
    return torch.randn(count, *SPEC.shape, generator=torch.Generator().manual_seed(seed))
