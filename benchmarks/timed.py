"""Runs whose iterations are timed: a network, a method, and the seconds of each part of a step."""

from __future__ import annotations

import time
from typing import Any, cast

import torch
from torch import nn

from dreamquant.jobs.bench import begin, set_up
from dreamquant.jobs.run_request import RunRequest
from dreamquant.methods import METHODS
from dreamquant.methods.method import Method, Preset
from dreamquant.networks.load import Network
from dreamquant.networks.probe import batch_norms
from dreamquant.networks.spec import InputSpec
from dreamquant.quantization.convert import quantize_network
from dreamquant.quantization.scheme import Bits, Scheme
from dreamquant.recovery.train import StudentLearns
from dreamquant.synthesis.generator import Stream
from dreamquant.training.bench import Bench
from dreamquant.training.losses import Losses
from networks import cifar10_resnet20


class Timed:
    """A training run that records the seconds of each part of its latest iteration.

    Args:
        bench: a fresh one.
        method: of a generator, which learns alone for one iteration, and of a student.

    Attributes:
        images: from the generator.
        learns: the phase in which both learn.
        phases: seconds of each part of the latest iteration.
    """

    def __init__(self, bench: Bench, method: Method) -> None:
        self.bench = bench
        run, images = begin(bench, method)
        next(run.steps())
        run.skip_to_end_of_phase()
        self.images, self.learns = cast(Stream, images), cast(StudentLearns, run.phase)
        self.phases: dict[str, float] = {}
        self._steps, self._then = run.steps(), now()
        self._note(self.images, "make", "synthesis")
        self._note(self.learns.learner, "learn", "student")
        self._note(self.images, "learn", "generator")

    def step(self) -> Losses:
        """One iteration; its losses."""
        self.phases, self._then = {}, now()
        losses = next(self._steps)
        self._over("update")
        return losses

    def _note(self, part: Any, call: str, phase: str) -> None:
        untimed = getattr(part, call)

        def timed(*arguments: Any) -> Any:
            result = untimed(*arguments)
            self._over(phase)
            return result

        setattr(part, call, timed)

    def _over(self, phase: str) -> None:
        ended = now()
        self.phases[phase] = self.phases.get(phase, 0.0) + ended - self._then
        self._then = ended


def now() -> float:
    """Seconds, after the device has finished."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def network_of(name: str) -> Network:
    """A network with random weights and statistics."""
    if name == "resnet20":
        network, image, classes = cifar10_resnet20(), (3, 32, 32), 10
    else:
        from torchvision import models

        network, image, classes = getattr(models, name)(), (3, 224, 224), 1000
    for _, norm in batch_norms(network):
        assert norm.running_mean is not None
        assert norm.running_var is not None
        nn.init.normal_(norm.running_mean, std=0.3)
        nn.init.uniform_(norm.running_var, 0.5, 1.5)
    spec = InputSpec(image, (0.0,) * 3, (1.0,) * 3, classes)
    return Network(name, network.eval().requires_grad_(False), spec, "random", "", None)


def training_of(
    method: str, network: str, batch: int, precision: str, device: str, **options: Any
) -> Timed:
    """A run with frozen ranges, past the warm-up; ``options`` are those of a request."""
    torch.manual_seed(0)
    teacher = network_of(network)
    numbers = Preset(
        images={"batch": batch, "alone": 1, "observe": 1}, recovery={"Train": {"batch": batch}}
    )
    published = METHODS[method].resolved("paper", teacher.input.shape).with_numbers(numbers)
    scheme = Scheme(Bits(4, 4), "relu-output", **published.scheme)
    example = torch.zeros(2, *teacher.input.shape)
    student, _ = quantize_network(teacher.module, scheme, example)
    request = RunRequest(device=device, precision=precision, **options)  # type: ignore[arg-type]
    accelerator = request.accelerator()
    bench = set_up(teacher, teacher.module, student, published, request, accelerator)
    return Timed(bench, published)
