"""A small network that knows digits, and real runs on it that take seconds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dreamquant.diagnostics.images import diagnose, observed
from dreamquant.evaluation.data import open_images
from dreamquant.jobs.bench import begin as begin_run
from dreamquant.jobs.bench import set_up
from dreamquant.jobs.dynamics import Dynamics
from dreamquant.jobs.run_request import RunRequest
from dreamquant.jobs.watchers import Record
from dreamquant.methods.method import Method, Preset
from dreamquant.networks import demo
from dreamquant.networks.load import wrap_module
from dreamquant.quantization.convert import quantize_network
from dreamquant.quantization.scheme import Bits, Scheme
from dreamquant.synthesis.source import Images
from dreamquant.training.bench import Bench
from dreamquant.training.phase import Run, run_to_the_end

SHAPE = demo.INPUT.shape


@dataclass(frozen=True)
class Played:
    """What was recorded in a run on the way, and what is found at its end."""

    record: Record
    look: Callable[[], dict[str, Any]]

    @property
    def found(self):
        """Attention, inconsistency and adaptability; looked at anew each time."""
        return self.look()

    def late(self, name):
        """Mean of a series over the second half of the run."""
        readings = self.record.dynamics[len(self.record.dynamics) // 2 :]
        return sum(reading[name] for reading in readings) / len(readings)


@pytest.fixture(scope="session")
def digits():
    """Real images; the network has seen 450 of them."""
    return open_images(demo.HELD_OUT, demo.INPUT)


@pytest.fixture(scope="session")
def network_of(digits):
    """``network_of(seed)``: four convolutions, trained for two seconds, each seed's once.

    Wide maps, unlike the demo's own network.
    """
    images = torch.cat(list(digits.batches(100)))

    @cache
    def build(seed):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            net = nn.Sequential(
                *block(1, 16), *block(16, 16), *block(16, 32, stride=2), *block(32, 32)
            ).extend([nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)])
            optimizer = torch.optim.AdamW(net.parameters())
            schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=150)
            for _ in range(150):
                few = torch.randperm(450)[:64]
                moved = images[few].roll(tuple(torch.randint(-1, 2, (2,)).tolist()), (2, 3))
                F.cross_entropy(net(moved), digits.labels[few]).backward()
                optimizer.step()
                optimizer.zero_grad()
                schedule.step()
        return net.eval().requires_grad_(False)

    return build


@pytest.fixture(scope="session")
def network(network_of):
    """That of seed 0."""
    return network_of(0)


def block(inputs, outputs, stride=1):
    convolution = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
    return convolution, nn.BatchNorm2d(outputs), nn.ReLU()


@dataclass(frozen=True)
class Begun:
    """A run that has done nothing yet, and what it works on."""

    bench: Bench
    run: Run
    images: Images
    method: Method

    def diagnose(self, teacher, images=None):
        """What is diagnosed of it as it stands."""
        return diagnose(self.bench, self.images, teacher, images, self.method.images.terms)


@pytest.fixture(scope="session")
def begin(network_of):
    """``begin(method)``: a fresh run at W3A3; each seed has a network of its own."""

    def build(method, seed=0):
        teacher = wrap_module(network_of(seed), demo.INPUT)
        scheme = Scheme(Bits(3, 3), **{"placement": "relu-output"} | dict(method.scheme))
        student, _ = quantize_network(teacher.module, scheme, torch.zeros(2, *SHAPE))
        request = RunRequest(device="cpu", precision="32", seed=seed)
        bench = set_up(teacher, teacher.module, student, method, request, request.accelerator())
        return Begun(bench, *begin_run(bench, method), method)

    return build


@pytest.fixture(scope="session")
def diagnosed(network_of, begin):
    """``diagnosed(method, …)``: a run of so many iterations at W3A3, and what was diagnosed."""

    def play(method, iterations=150, *, images=None, student_learns=True, seed=0):
        method = method.lasting(iterations).with_numbers(Preset(images={"lr": 5e-3}))
        if not student_learns:
            alone = replace(method.images, alone=iterations)
            method = replace(method, images=alone, recovery=())
        begun = begin(method, seed)
        teacher, record = observed(network_of(seed), torch.zeros(2, *SHAPE)), Record()
        run_to_the_end(begun.run, [Dynamics(record, teacher, begun.images)])
        begun.bench.student.fix()
        return Played(record, lambda: begun.diagnose(teacher, images))

    return play
