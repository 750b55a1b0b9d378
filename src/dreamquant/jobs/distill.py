"""Data-free knowledge distillation: another, smaller network learns what a trained one does."""

from __future__ import annotations

import copy
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from dreamquant.jobs.job import Job, images_given
from dreamquant.jobs.outcome import Outcome, plain
from dreamquant.jobs.quantize import quantize
from dreamquant.jobs.request import DistillRequest, asked
from dreamquant.jobs.resume import with_settled_precision
from dreamquant.methods import find_method
from dreamquant.methods.any_output import for_task
from dreamquant.methods.method import Method
from dreamquant.methods.quick import DISTILL
from dreamquant.networks.load import Network, inheriting, load_network, untrained
from dreamquant.networks.probe import batch_norms
from dreamquant.networks.weights import state_sha256
from dreamquant.quantization.scheme import Bits
from dreamquant.quantization.student import Student
from dreamquant.results.describe import describe_distillation, describe_method, describe_network
from dreamquant.results.folder import STUDENT, require_no_result
from dreamquant.results.result import Result
from dreamquant.results.upgrade import SCHEMA

DISTILLED = "distilled"  # where the float student of a quantized one is kept


def distill(
    teacher: str | Network,
    student: str,
    method: str | Method = "adadfq",
    *,
    out: str | Path | None = None,
    **options: Any,
) -> Result:
    """Train another, smaller network to do what a trained one does, without data.

    Images come and the student learns by the terms of the method; since the student starts from
    nothing, its numbers are :data:`dreamquant.methods.quick.DISTILL` and not the method's.

    Args:
        teacher: as :func:`dreamquant.quantize` takes a network.
        student: an architecture by name, as :func:`dreamquant.load_network` takes it; it starts
            from fresh weights, or those that a factory of your own gives it.
        method: as ``dreamquant methods`` lists them, or one of your own.
        out: the result folder; needed to resume.
        options: those of :class:`dreamquant.jobs.request.DistillRequest`, by name; the command
            line has the same. With ``bits`` the student is quantized afterwards, by the same
            method and its quick preset, as much shorter or longer as the distillation was; the
            student in float is then the teacher, and kept in ``out/distilled``.

    Returns:
        The result; saved already where ``out`` is given.

    Raises:
        DreamQuantError: what was given cannot be used; its subclasses say which part.
        KeyboardInterrupt: the run was stopped; with ``out`` it was saved first.
    """
    started = time.monotonic()
    request = asked(DistillRequest, {"method": method, **options})
    folder = None if out is None else Path(out)
    if request.bits is not None:
        Bits.parse(request.bits)  # wrong bits are an error before the hours of training
    if folder is not None and not request.resume:
        require_no_result(folder)
    chosen = find_method(request.method)
    source = teacher if isinstance(teacher, Network) else load_network(teacher)
    target = untrained(student, source, request.seed)
    if request.inherit:
        target = inheriting(target, source)
    own = folder if folder is None or request.bits is None else folder / DISTILLED
    request = with_settled_precision(request, own)
    distilled = _distilled(source, target, chosen, request, own, started)
    if request.bits is None:
        return distilled
    length = {"iterations": _in_proportion(chosen, distilled, source), "budget": None}
    return quantize(
        _as_teacher(distilled, target, own),
        request.bits,
        chosen,
        out=out,
        **{**request.run_options(), **length},
    )


def _distilled(
    source: Network,
    target: Network,
    method: Method,
    request: DistillRequest,
    folder: Path | None,
    started: float,
) -> Result:
    resolved = method.resolved("quick", source.input.shape)
    resolved = for_task(resolved, source.input.task).with_numbers(DISTILL)
    student = _beginner(target.module)
    resolved = resolved.lasting(request.iterations)
    images = images_given(request, source)
    job = Job(source, student, resolved, request, images=images, started=started)
    configuration = {
        "network": source.weights_sha256,
        "student": target.weights_sha256,
        **job.configuration(),
        "method": method.name,
    }

    def manifest(outcome: Outcome) -> dict[str, Any]:
        trained = replace(target, weights_sha256=state_sha256(student.network))
        return {
            "schema": SCHEMA,
            "network": describe_network(trained),
            "teacher": describe_network(source),
            "method": describe_method(job.method, "distill"),
            "request": {"command": "distill", **request.record()},
            "protocol": describe_distillation(source, **job.protocol()),
            "scheme": None,
            "prepared": [],
            "parameters": {"teacher": _count(source.module), "student": _count(student.network)},
            **outcome.measured,
            "files": {},
        }

    return job.result(folder, plain(configuration), manifest, architecture=target.module)


def _beginner(module: nn.Module) -> Student:
    """A student that learns all its weights, its batch norms on the batch's own statistics."""
    own = copy.deepcopy(module).requires_grad_(True)
    student = Student(own).eval()
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
