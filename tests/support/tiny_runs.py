"""A tiny trained-looking network, and real runs on it that take milliseconds."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import nn

import tiny
from dreamquant.jobs.bench import begin, set_up
from dreamquant.jobs.run_request import RunRequest
from dreamquant.methods import METHODS, find_method
from dreamquant.methods.method import Method, Preset
from dreamquant.networks import demo
from dreamquant.networks.load import Network
from dreamquant.networks.taps import Output
from dreamquant.quantization.convert import quantize_network
from dreamquant.quantization.scheme import Bits, Scheme
from dreamquant.recovery.train import Train
from dreamquant.synthesis.generator import Generator
from dreamquant.synthesis.source import Images
from dreamquant.training.batch import Batch
from dreamquant.training.bench import Bench
from dreamquant.training.decay import Cosine, Steps
from dreamquant.training.phase import Run, run_to_the_end
from dreamquant.training.rng import Rng
from dreamquant.training.step import Players, Step
from dreamquant.training.watched import Watched

IMAGE, CLASSES = tiny.INPUT.shape, tiny.CLASSES
# The others keep their images, or need none: tests/methods/test_stored.py and test_extremes.py.
WITH_GENERATOR = [name for name, each in METHODS.items() if isinstance(each.images, Generator)]


def blind_classifier():
    """A classifier of digits that takes nearly everything else, and most digits, for a zero."""
    network = demo.teacher()
    with torch.no_grad():
        network.module[8].bias[0] += 20
    return network


def tiny_network(seed=0):
    """The benchmarks' tiny network, with statistics as if it had been trained."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = tiny.network()
        for norm in (network[1], network[4]):
            nn.init.normal_(norm.running_mean, std=0.3)
            nn.init.uniform_(norm.running_var, 0.2, 1.5)
            nn.init.uniform_(norm.weight, 0.7, 1.3)
            nn.init.normal_(norm.bias, std=0.3)
    return network.eval().requires_grad_(False)


def short_method(method="adadfq", preset="quick", *, images=None, train=None, **numbers):
    """A method on the tiny images: two iterations of warm-up, four in which the student learns.

    ``alone``, ``observe``, ``learn`` and ``batch`` set other numbers; ``images`` and ``train`` are
    fields of its source and of its training.
    """
    few = {"alone": 2, "learn": 4, "batch": 4} | numbers
    resolved = find_method(method).resolved(preset, IMAGE)
    steps = isinstance(resolved.images.decay, Steps)
    shared = {"batch": few["batch"]}
    own = {
        "alone": few["alone"],
        "observe": few.get("observe", few["alone"]),
        "decay": Steps((few["alone"] + 2,)) if steps else Cosine(),
    }
    learns = {"iterations": few["learn"], "decay": Steps((2,)) if steps else Cosine(rise=1)}
    return resolved.with_numbers(
        Preset(
            images=shared | own | (images or {}),
            recovery={"Train": shared | learns | (train or {})},
        )
    )


def training_of(method) -> Train:
    """The part in which the student learns."""
    (part,) = (part for part in method.recovery if isinstance(part, Train))
    return part


@dataclass
class TinyRun:
    """A run and what it works on; ``rest`` does the steps that are left."""

    bench: Bench
    run: Run
    images: Images
    method: Method

    def __post_init__(self):
        self.rest = self.run.steps()

    def step(self):
        """One step more; its losses."""
        return next(self.rest)

    def steps(self, count):
        """So many steps more; the run itself, to be read."""
        for _ in range(count):
            self.step()
        return self

    def to_the_end(self, *watchers):
        """All steps that are left."""
        run_to_the_end(self.run, watchers)
        return self

    @property
    def teacher(self):
        return self.bench.teacher

    @property
    def student(self):
        return self.bench.student

    @property
    def student_parameters(self):
        return [p for p in self.student.parameters() if p.requires_grad]

    @property
    def generator(self):
        return self.images.network

    @property
    def generator_parameters(self):
        return list(self.generator.parameters())


def tiny_teacher(network=None, spec=tiny.INPUT):
    """A network as jobs take it; the module itself, not a copy."""
    module = tiny_network() if network is None else network
    return Network("tiny", module, spec, "given", "", None)


def tiny_run(
    method,
    *,
    network=None,
    spec=tiny.INPUT,
    bits="w3a3",
    placement="relu-output",
    seed=0,
    device="cpu",
    precision="32",
    **options,
):
    """A fresh run of a resolved method; ``options`` are those of a request."""
    teacher = tiny_teacher(network, spec)
    numbers = {**method.scheme, "placement": placement}
    scheme = Scheme(Bits.parse(bits), **numbers)
    student, _ = quantize_network(teacher.module, scheme, torch.zeros(2, *spec.shape))
    request = RunRequest(seed=seed, device=device, precision=precision, **options)
    bench = set_up(teacher, teacher.module, student, method, request, request.accelerator())
    run, images = begin(bench, method)
    return TinyRun(bench, run, images, method)


def players_of(teacher, student=None, teacher_taps=(), student_taps=(), shape=IMAGE):
    """Two networks as terms ask them; the teacher is its own student where there is none."""
    example = torch.zeros(2, *shape)
    asked = teacher if student is None else student
    return Players(
        Watched(teacher, example, teacher_taps), Watched(asked, example, (*student_taps, Output()))
    )


def step_on(players, images, *, targets=None, conditions=None, seed=0, student_learns=True):
    """A step on images that nothing made."""
    count = len(images)
    labels = torch.zeros(count, dtype=torch.int64) if targets is None else targets
    batch = Batch(images, labels, torch.zeros(count, 100), conditions or {})
    rng = Rng.seeded(seed, images.device)
    return Step(batch, players, rng, student_learns=student_learns)


def with_images(method, **numbers):
    """The method with other fields of its source."""
    return replace(method, images=replace(method.images, **numbers))


def with_training(method, **numbers):
    """The method with other fields of its training."""
    recovery = tuple(
        replace(part, **numbers) if isinstance(part, Train) else part for part in method.recovery
    )
    return replace(method, recovery=recovery)
