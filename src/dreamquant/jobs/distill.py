"""Data-free knowledge distillation: another, smaller network learns what a trained one does."""

from __future__ import annotations

import copy
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from dreamquant.jobs.job import Job, Outcome, plain
from dreamquant.jobs.quantize import quantize
from dreamquant.jobs.settings import Settings
from dreamquant.methods import find_method
from dreamquant.methods.method import Method
from dreamquant.methods.quick import DISTILL
from dreamquant.networks.load import Network, inheriting, load_network, untrained
from dreamquant.networks.probe import batch_norms
from dreamquant.networks.weights import state_sha256
from dreamquant.quantization.layers import Student
from dreamquant.quantization.scheme import Bits
from dreamquant.results import manifest as describe
from dreamquant.results.result import STUDENT, Result, require_no_result

DISTILLED = "distilled"  # where the float student of a quantized one is kept


def distill(
    teacher: str | Network,
    student: str,
    method: str | Method = "adadfq",
    *,
    inherit: bool = False,
    bits: str | None = None,
    iterations: int | None = None,
    budget: str | None = None,
    seed: int = 0,
    data: str | Path | None = None,
    device: str = "auto",
    precision: str = "32",
    compiled: bool = False,
    threads: int | None = None,
    accumulate: int = 1,
    out: str | Path | None = None,
    resume: bool = False,
    quiet: bool = False,
    verbose: bool = False,
) -> Result:
    """Train another, smaller network to do what a trained one does, without data.

    Generator and student play by the terms of the method; since the student starts from nothing,
    its schedule is :data:`dreamquant.methods.quick.DISTILL` and not the method's.

    Args:
        teacher: as :func:`dreamquant.quantize` takes a network.
        student: an architecture by name, as :func:`dreamquant.load_network` takes it; it starts
            from fresh weights, or those that a factory of your own gives it.
        method: as ``dreamquant methods`` lists them, or one of your own.
        inherit: start from the teacher's own tensors where the student has one of the same name
            and shape, as in the same architecture with fewer blocks.
        bits: to quantize the student to afterwards, by the same method and its quick preset, as
            much shorter or longer as the distillation was; the student in float is then the
            teacher, and kept in ``out/distilled``. ``None`` leaves it in float.
        iterations: stretch or squeeze the distillation to so many.
        budget: the same, to a duration such as ``5min`` on this machine.
        seed: of everything random.
        data: images to measure on; they take no part in training.
        device: ``auto``, ``cpu`` or ``cuda``.
        precision: ``32`` or ``bf16``, while training.
        compiled: compile the networks first: a minute or two, then quicker steps.
        threads: of this process from now on; ``None`` leaves them, one per core at first.
        accumulate: parts that a batch is taken in, one after another, where memory is small.
        out: the result folder; needed to resume.
        resume: as :func:`dreamquant.quantize` does.
        quiet: show no progress.
        verbose: show losses and accuracies on the way too, line by line.

    Returns:
        The result; saved already where ``out`` is given.

    Raises:
        DreamQuantError: what was given cannot be used; its subclasses say which part.
        KeyboardInterrupt: the run was stopped; with ``out`` it was saved first.
    """
    in_both_phases: dict[str, Any] = {
        "seed": seed,
        "data": data,
        "device": device,
        "precision": precision,
        "compiled": compiled,
        "threads": threads,
        "accumulate": accumulate,
        "resume": resume,
        "quiet": quiet,
        "verbose": verbose,
    }
    started = time.monotonic()
    settings = Settings(iterations=iterations, budget=budget, **in_both_phases)
    folder = None if out is None else Path(out)
    if bits is not None:
        Bits.parse(bits)  # wrong bits are told before the hours of training
    if folder is not None and not resume:
        require_no_result(folder)
    chosen = find_method(method)
    source = teacher if isinstance(teacher, Network) else load_network(teacher)
    target = untrained(student, source, seed)
    if inherit:
        target = inheriting(target, source)
    own = folder if folder is None or bits is None else folder / DISTILLED
    distilled = _distilled(source, target, chosen, settings, own, inherit=inherit, started=started)
    if bits is None:
        return distilled
    return quantize(
        _as_teacher(distilled, target, own),
        bits,
        chosen,
        iterations=_in_proportion(chosen, distilled, source),
        out=out,
        **in_both_phases,
    )


def _distilled(
    source: Network,
    target: Network,
    method: Method,
    settings: Settings,
    folder: Path | None,
    *,
    inherit: bool,
    started: float,
) -> Result:
    resolved = method.resolved("quick", source.input.shape).with_numbers(DISTILL)
    student = _beginner(target.module)
    job = Job(source, student, resolved.lasting(settings.iterations), settings, started=started)
    configuration = {
        "network": source.weights_sha256,
        "student": target.weights_sha256,
        "method": method.name,
        **job.configuration(),
    }

    def manifest(outcome: Outcome) -> dict[str, Any]:
        trained = replace(target, weights_sha256=state_sha256(student.network))
        return {
            "schema": describe.SCHEMA,
            "network": describe.describe_network(trained),
            "teacher": describe.describe_network(source),
            "method": describe.describe_method(job.method, "distill"),
            "request": {**describe.describe_request(method, settings.data), "inherit": inherit},
            "protocol": describe.describe_distillation(
                source,
                seed=settings.seed,
                precision=settings.precision,
                accumulate=settings.accumulate,
            ),
            "scheme": None,
            "parameters": {"teacher": _count(source.module), "student": _count(student.network)},
            **outcome.measured,
        }

    return job.result(folder, plain(configuration), manifest, architecture=target.module)


def _beginner(module: nn.Module) -> Student:
    """A student that learns all its weights, its batch norms on the batch's own statistics."""
    own = copy.deepcopy(module).requires_grad_(True)
    student = Student(own, nn.ModuleList()).eval()
    for _, norm in batch_norms(own):
        norm.train()
    return student


def _as_teacher(distilled: Result, target: Network, folder: Path | None) -> Network:
    module = distilled.model.network
    return replace(
        target,
        module=module,
        weights_sha256=state_sha256(module),
        weights=None if folder is None else str(folder / STUDENT),
    )


def _in_proportion(method: Method, distilled: Result, source: Network) -> int:
    """Iterations of the quick preset, stretched as the distillation was."""
    taken: int = distilled.manifest["timings"]["iterations"]
    quick = method.resolved("quick", source.input.shape)
    whole = quick.with_numbers(DISTILL)
    return max(1, round(quick.iterations * taken / whole.iterations))


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
