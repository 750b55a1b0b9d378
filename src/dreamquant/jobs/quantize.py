"""The main job from Python: a network in, a quantized network out, no data needed."""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dreamquant.diagnostics.figure import require_matplotlib
from dreamquant.errors import NetworkError
from dreamquant.jobs.checkpoint import STATE
from dreamquant.jobs.job import Job, Outcome, plain
from dreamquant.jobs.settings import Settings
from dreamquant.methods import find_method
from dreamquant.methods.method import Method
from dreamquant.networks import demo
from dreamquant.networks.load import Network, load_network, wrap_module
from dreamquant.networks.spec import InputSpec
from dreamquant.quantization.convert import quantize_network
from dreamquant.quantization.scheme import Bits, Gradient, Placement, Ranges, Scheme
from dreamquant.recovery.norms import Norms, reestimating
from dreamquant.results import manifest as describe
from dreamquant.results.result import CHECKPOINT, Result, remove_result


def quantize(
    network: nn.Module | str | Network,
    bits: str = "w4a4",
    method: str | Method = "adadfq",
    *,
    input: InputSpec | None = None,
    placement: Placement | None = None,
    first_last: int | None = None,
    overrides: tuple[tuple[str, str], ...] = (),
    joins: int | None = None,
    preset: str = "quick",
    ranges: Ranges | None = None,
    gradient: Gradient | None = None,
    norms: Norms | None = None,
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
    diagnostics: bool = False,
    resume: bool = False,
    quiet: bool = False,
    verbose: bool = False,
) -> Result:
    """Quantize a trained network on images dreamed up from the network itself.

    Args:
        network: a module; the name of one whose zoo knows its input (``torchvision:resnet18``);
            or a :class:`Network` from :func:`dreamquant.load_network`, which takes the rest.
        bits: of weights and activations, ``w2a2`` to ``w8a8``.
        method: as ``dreamquant methods`` lists them, or one of your own.
        input: what a module given in memory expects.
        placement: of activation quantizers, see :class:`dreamquant.Scheme`.
        first_last: bits of the first and last layer, where other than ``bits``.
        overrides: ``(layer pattern, bits)`` pairs, such as ``("layer1.*", "w8a8")``.
        joins: bits of what sums, concatenations and poolings read, for integer hardware.
        preset: ``quick``, ``paper``, or another that the method has.
        ranges: ``ema`` or ``learned``, where other than the preset's.
        gradient: ``straight-through`` or ``clipped``, likewise.
        norms: ``kept`` or ``matched``, likewise.
        iterations: stretch or squeeze the preset's schedule to so many.
        budget: the same, to a duration such as ``5min`` on this machine.
        seed: of everything random.
        data: images to measure on; they take no part in training.
        device: ``auto``, ``cpu`` or ``cuda``.
        precision: ``32`` or ``bf16``, while training.
        compiled: compile the networks first: a minute or two, then quicker steps.
        threads: of this process from now on; ``None`` leaves them, one per core at first.
        accumulate: parts that a batch is taken in, one after another, where memory is small; what
            is computed over a batch, such as its statistics, is then computed over each part.
        out: the result folder; needed to resume.
        diagnostics: record what the papers diagnose, see docs/diagnostics.md; the student is the
            same with and without.
        resume: go on from the checkpoint in ``out``; start where there is none, and return the
            result where there is one already.
        quiet: show no progress.
        verbose: show losses and accuracies on the way too, line by line.

    Returns:
        The result; saved already where ``out`` is given.

    Raises:
        DreamQuantError: what was given cannot be used; its subclasses say which part.
        KeyboardInterrupt: the run was stopped; with ``out`` it was saved first.
    """
    started = time.monotonic()
    settings = Settings(
        iterations=iterations,
        budget=budget,
        seed=seed,
        data=data,
        device=device,
        precision=precision,
        compiled=compiled,
        threads=threads,
        accumulate=accumulate,
        resume=resume,
        quiet=quiet,
        verbose=verbose,
    )
    if diagnostics:
        require_matplotlib()
    chosen = find_method(method)
    teacher = _open(network, input)
    resolved = chosen.resolved(preset, teacher.input.shape).lasting(iterations)
    if norms is not None:
        resolved = replace(resolved, recovery=reestimating(resolved.recovery, norms))
    given = {"placement": placement, "ranges": ranges, "gradient": gradient}
    scheme = Scheme(
        Bits.parse(bits),
        **{**resolved.scheme, **{name: value for name, value in given.items() if value}},
        first_last_bits=first_last,
        overrides=tuple((pattern, Bits.parse(text)) for pattern, text in overrides),
        joins=joins,
    )
    example = torch.zeros(2, *teacher.input.shape)
    student, coverage = quantize_network(teacher.module, scheme, example)
    job = Job(teacher, student, resolved, settings, started=started, diagnostics=diagnostics)
    configuration = {
        "network": teacher.weights_sha256,
        "method": chosen.name,
        "preset": preset,
        **job.configuration(),
        "diagnostics": diagnostics,
        "norms": norms,
        # After the preset, which it depends on: the first that differs is named.
        "scheme": asdict(scheme),
    }

    def manifest(outcome: Outcome) -> dict[str, Any]:
        return {
            "schema": describe.SCHEMA,
            "network": describe.describe_network(teacher),
            "method": describe.describe_method(job.method, preset),
            "request": describe.describe_request(method, data),
            "protocol": describe.describe_protocol(
                teacher,
                scheme,
                job.method,
                seed=seed,
                precision=precision,
                accumulate=accumulate,
            ),
            "scheme": asdict(scheme),
            "coverage": asdict(coverage),
            **outcome.measured,
        }

    folder = None if out is None else Path(out)
    return job.result(folder, plain(configuration), manifest, architecture=teacher.module)


def quantize_demo(out: str | Path, *, quiet: bool = False, verbose: bool = False) -> Result:
    """Quantize the embedded digit network to W3A3 with AdaDFQ, and save the result.

    Args:
        out: the result folder; what an earlier demo left there is replaced, or gone on with where
            it was stopped.
        quiet: as for :func:`quantize`.
        verbose: likewise.

    Raises:
        ResultError: the folder holds something else, or cannot be written.
    """
    network = demo.teacher()
    remove_result(Path(out), made_from=network.weights_sha256)
    resume = (Path(out) / CHECKPOINT / STATE).exists()
    return quantize(
        network,
        "w3a3",
        "adadfq",
        data=demo.HELD_OUT,
        device="cpu",
        out=out,
        resume=resume,
        quiet=quiet,
        verbose=verbose,
    )


def _open(network: nn.Module | str | Network, spec: InputSpec | None) -> Network:
    if isinstance(network, Network):
        return network
    if isinstance(network, str):
        return load_network(network)
    if spec is None:
        raise NetworkError(
            f"nothing tells the input of a {type(network).__name__} given in memory",
            where="quantize(input=…)",
            remedy="give input=InputSpec(shape, mean, std, num_classes)",
        )
    return wrap_module(network, spec)
