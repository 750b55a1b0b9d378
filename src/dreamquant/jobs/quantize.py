"""The main job from Python: a network in, a quantized network out, no data needed."""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dreamquant.diagnostics.figure import require_matplotlib
from dreamquant.errors import MethodError, NetworkError
from dreamquant.export import job as export
from dreamquant.jobs.bits import Chosen, choose_bits
from dreamquant.jobs.checkpoint import STATE
from dreamquant.jobs.images import identity, selected, told, with_images
from dreamquant.jobs.job import Job, images_given
from dreamquant.jobs.outcome import Outcome, plain
from dreamquant.jobs.request import AUTO, QuantizeRequest, asked
from dreamquant.jobs.resume import with_settled_precision
from dreamquant.methods import find_method
from dreamquant.methods.any_output import for_task, left_out, replaced
from dreamquant.methods.method import Method
from dreamquant.networks import demo
from dreamquant.networks.load import Network, load_network, wrap_module
from dreamquant.networks.spec import InputSpec
from dreamquant.quantization.convert import quantize_network
from dreamquant.quantization.coverage import Coverage
from dreamquant.quantization.prepare import prepared, structures
from dreamquant.quantization.scheme import SCHEMES, Bits, Scheme
from dreamquant.recovery.norms import ReestimateNorms, reestimating
from dreamquant.results.describe import describe_method, describe_network, describe_protocol
from dreamquant.results.folder import CHECKPOINT, remove_result
from dreamquant.results.rehearsal import rehearse
from dreamquant.results.result import Result
from dreamquant.results.upgrade import SCHEMA


def quantize(
    network: nn.Module | str | Network,
    bits: str = "w4a4",
    method: str | Method = "auto",
    *,
    input: InputSpec | None = None,
    out: str | Path | None = None,
    rehearse_export: bool = False,
    **options: Any,
) -> Result:
    """Quantize a trained network without any of its training data.

    Args:
        network: a module; the name of one whose zoo knows its input (``torchvision:resnet18``);
            or a :class:`Network` from :func:`dreamquant.load_network`, which takes the rest.
        bits: of weights and activations, ``w2a2`` to ``w8a8``.
        method: as ``dreamquant methods`` lists them, or one of your own.
        input: what a module given in memory expects.
        out: the result folder; needed to resume.
        rehearse_export: before anything is learned, try whether the result can be exported.
        options: those of :class:`dreamquant.jobs.request.QuantizeRequest`, by name; the command
            line has the same.

    Returns:
        The result; saved already where ``out`` is given.

    Raises:
        DreamQuantError: what was given cannot be used; its subclasses say which part.
        KeyboardInterrupt: the run was stopped; with ``out`` it was saved first.
    """
    started = time.monotonic()
    folder = None if out is None else Path(out)
    request = asked(QuantizeRequest, {"bits": bits, "method": method, **options})
    request = with_settled_precision(request, folder)
    if request.diagnostics:
        require_matplotlib()
    teacher = _open(network, input)
    chosen = find_method(request.method)
    scheme, resolved = _resolved(chosen, request, teacher)
    teacher, resolved = _for_task(teacher, resolved, request)
    labelled = images_given(request, teacher)
    images = "" if request.images is None else told(resolved.images, teacher)
    floating = prepared(teacher.module, resolved.prepare, _noise(teacher.input))
    chosen_bits = _chosen_bits(floating, teacher.input, scheme, request)
    if chosen_bits is not None:
        scheme = replace(scheme, overrides=(*chosen_bits.overrides, *scheme.overrides))
    example = torch.zeros(2, *teacher.input.shape)
    student, coverage = quantize_network(floating, scheme, example)
    norms = any(isinstance(p, ReestimateNorms) and p.batches for p in resolved.recovery)
    rehearse(
        floating,
        student,
        scheme,
        example,
        reestimate=norms,
        then=partial(export.rehearse_export, spec=teacher.input) if rehearse_export else None,
    )
    job = Job(
        teacher,
        student,
        resolved,
        request,
        images=labelled,
        prepared=floating,
        started=started,
        diagnostics=request.diagnostics,
    )
    configuration = _configuration(job, teacher, chosen, resolved, scheme)
    manifest = partial(_manifest, job, request, teacher, scheme, coverage, images, chosen_bits)
    return job.result(folder, configuration, manifest, architecture=teacher.module)


def _configuration(
    job: Job, teacher: Network, chosen: Method, resolved: Method, scheme: Scheme
) -> dict[str, Any]:
    """What a run that goes on must share with the one that was stopped."""
    given = job.configuration()
    given.pop("scheme")  # it is the option; the scheme that it led to is the last entry
    ours = {"network": teacher.weights_sha256, **given, **identity(resolved.images)}
    # The scheme follows the preset, which it depends on: the first entry that differs is named.
    return plain({**ours, "method": chosen.name, "scheme": asdict(scheme)})


def _manifest(
    job: Job,
    request: QuantizeRequest,
    teacher: Network,
    scheme: Scheme,
    coverage: Coverage,
    images: str,
    chosen: Chosen | None,
    outcome: Outcome,
) -> dict[str, Any]:
    protocol = describe_protocol(
        teacher,
        scheme,
        job.method,
        images=images,
        dynamic=(coverage.dynamic_scales, coverage.dynamic_values),
        **job.protocol(),
    )
    if chosen is not None:
        protocol["bits"] = f"w{chosen.mean:.2f}a8"
    return {
        "schema": SCHEMA,
        "network": describe_network(teacher),
        "method": describe_method(job.method, request.preset),
        "request": {"command": "quantize", **request.record()},
        "protocol": protocol,
        **({"bits_chosen": chosen.record()} if chosen is not None else {}),
        "scheme": asdict(scheme),
        "prepared": structures(job.method.prepare),
        "coverage": asdict(coverage),
        **outcome.measured,
        "files": {},
    }


def _noise(spec: InputSpec) -> torch.Tensor:
    """Two images on which a preparation shows whether it changes what the network computes."""
    return torch.randn(2, *spec.shape, generator=torch.Generator().manual_seed(0))


def _chosen_bits(
    network: nn.Module, spec: InputSpec, scheme: Scheme, request: QuantizeRequest
) -> Chosen | None:
    if request.bits != AUTO:
        return None
    return choose_bits(
        network, spec, scheme, size=request.bytes_allowed, max_drop=request.points_allowed
    )


def _resolved(method: Method, request: QuantizeRequest, teacher: Network) -> tuple[Scheme, Method]:
    resolved = method.resolved(request.preset, teacher.input.shape)
    if request.images is not None:
        resolved = with_images(resolved, request.images, teacher)
    if request.select is not None:
        resolved = selected(resolved, request.select, teacher)
    scheme = _scheme(resolved, request)
    example = torch.zeros(2, *teacher.input.shape)
    resolved = resolved.suited(teacher.module, example, scheme).lasting(request.iterations)
    if teacher.input.features:
        resolved = resolved.for_features()
    if request.batch_norm is None:
        return scheme, resolved
    if request.batch_norm == "re-estimated" and resolved.images is None:
        raise MethodError(
            f"batch norms are re-estimated on a method's own images, and {method.name} has none "
            "for that",
            where="--batch-norm re-estimated",
            remedy="leave it out, or choose a method with images, such as adadfq",
        )
    recovery = reestimating(resolved.recovery, request.batch_norm)
    return scheme, replace(resolved, recovery=recovery)


def _for_task(teacher: Network, method: Method, request: QuantizeRequest) -> tuple[Network, Method]:
    """The method in the form that the network's task needs; differences are noted."""
    task = teacher.input.task
    if request.diagnostics and task != "classification":
        raise MethodError(
            f"the papers' diagnoses are of classifiers, and this network's task is {task}",
            where="--diagnostics",
            remedy="leave the option out",
        )
    served = for_task(method, task)
    notes = [
        f"images are made without {name}, which needs classes" for name in left_out(method, served)
    ]
    notes += [
        f"the labels are independent: the student learns by {form} in place of {name}"
        for name, form in replaced(method, served)
    ]
    notes += [
        f"{method.name} goes without its stage {stage!r}: {why}"
        for part in method.recovery
        for stage, why in part.left_out
    ]
    return replace(teacher, notes=(*teacher.notes, *notes)), served


# Options that the scheme calls otherwise.
_FIELDS = {"first_last": "first_last_bits", "elementwise": "joins"}


def _scheme(method: Method, request: QuantizeRequest) -> Scheme:
    names = ("placement", "ranges", "gradient", "first_last", "elementwise")
    asked_for = {_FIELDS.get(name, name): getattr(request, name) for name in names}
    numbers = {
        **method.scheme,
        **({} if request.scheme is None else SCHEMES[request.scheme]),
        **{name: value for name, value in asked_for.items() if value is not None},
    }
    if request.elementwise is None and numbers.get("placement") == "relu-output":
        numbers.pop("joins", None)
    return Scheme(
        Bits(8, 8) if request.bits == AUTO else Bits.parse(request.bits),
        **numbers,
        overrides=request.overrides,
        weights_range=request.weights_range,
        softmax=request.softmax,
    )


# Digits need fewer iterations than the quick preset's 1200: seeds 0, 1, 2 end at 96.15, 96.15 and
# 96.31 % after 450, at 96.65, 95.98 and 95.64 % after 1200, and have 64 to 74 % by ranges alone.
_DEMO = ("w3a3", "adadfq", 450)
_DEMO_TRANSFORMER = ("w4a4", "psaq_vit", 50)


def quantize_demo(
    out: str | Path, *, transformer: bool = False, quiet: bool = False, verbose: bool = False
) -> Result:
    """Quantize an embedded digit network, and save the result: to W3A3 with AdaDFQ.

    It trains in float32 wherever it runs, so that the figure differs little between machines.

    Args:
        out: the result folder; what an earlier demo left there is replaced, or resumed where
            it was stopped.
        transformer: take the transformer instead, to W4A4 with PSAQ-ViT.
        quiet: as for :func:`quantize`.
        verbose: likewise.

    Raises:
        ResultError: the folder holds something else, or cannot be written.
    """
    network = demo.transformer_teacher() if transformer else demo.teacher()
    bits, method, iterations = _DEMO_TRANSFORMER if transformer else _DEMO
    remove_result(Path(out), made_from=network.weights_sha256)
    resume = (Path(out) / CHECKPOINT / STATE).exists()
    return quantize(
        network,
        bits,
        method,
        iterations=iterations,
        data=demo.HELD_OUT,
        device="cpu",
        precision="32",
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
            f"the input of a {type(network).__name__} given in memory is not known",
            where="quantize(input=…)",
            remedy="give input=InputSpec(shape, mean, std, num_classes)",
        )
    return wrap_module(network, spec)
