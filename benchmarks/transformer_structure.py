"""Transformers of real size with random weights: is every product quantized, and exported?

    python benchmarks/transformer_structure.py [--limit SECONDS]

Each cell runs in a process of its own, on one thread: the export of a network, or steps of the
synthesis of a method's images, with SMI's token stopping too. The digits' transformer tells what
stopping costs in accuracy. Finished cells are kept in ``docs/results/`` and not repeated.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from dreamquant import InputSpec, open_result, quantize
from dreamquant.export.onnx_file import onnx_file
from dreamquant.methods import find_method
from dreamquant.networks import demo
from dreamquant.networks.attention import split_attention
from dreamquant.networks.token_sets import find_token_set
from dreamquant.quantization.convert import quantize_network
from dreamquant.quantization.scheme import Bits, Scheme
from dreamquant.results.describe import describe_machine
from dreamquant.synthesis.pixels import Pixels
from dreamquant.synthesis.token_stopping import Moved, Place, Tokens
from dreamquant.terms.contract import weighted
from dreamquant.training.batch import Batch
from dreamquant.training.rng import Rng
from dreamquant.training.step import Players, Step
from dreamquant.training.watched import Watched
from grid import spread
from pages import RESULTS, grow, runs_on, write_page

PATH = RESULTS / "transformer-structure.json"
TITLE = "Transformers of real size, with random weights"
NAMES = ("deit_tiny_patch16_224", "vit_small_patch16_224", "swin_tiny_patch4_window7_224")
KINDS = ("export", "psaq_vit", "mimiq")
# Swin is refused by +smi: its windows read tokens by their places.
STOPPED = [(name, f"{kind}+smi") for kind in KINDS[1:] for name in NAMES[:2]]
TRAINED = "digits' transformer"  # W4A4 at the quick preset
ACCURACIES = [
    (TRAINED, f"{method} {seed}")
    for base in KINDS[1:]
    for seed in range(3)
    for method in (base, f"{base}+smi")
]
SPEC = InputSpec((3, 224, 224), (0.5,) * 3, (0.5,) * 3, 1000)
BITS, BATCH, STEPS = "w8a8", 4, 3
_MANIFEST: dict[str, Any] = {
    "coverage": {"layers": []},
    "method": {"name": "none"},
    "protocol": {"seed": 0},
}
Cell = tuple[str, str]


def missing() -> Iterator[Cell]:
    """Cells that are not on record."""
    known = {(run["network"], run["kind"]) for run in runs_on(PATH)}
    cells = [*((name, kind) for kind in KINDS for name in NAMES), *STOPPED, *ACCURACIES]
    return iter([cell for cell in cells if cell not in known])


def in_own_process(name: str, kind: str) -> dict[str, Any]:
    """A cell in a process of its own, so that its memory is its own."""
    command = [sys.executable, __file__, "--cell", name, kind]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    run: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return run


def measured(name: str, kind: str) -> dict[str, Any]:
    """A cell, in this process."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if name == TRAINED:
        before, found = _peak(), accuracy(*kind.split())
    else:
        network = split_attention(timm.create_model(name)).eval().requires_grad_(False)
        before, found = _peak(), exported(network) if kind == "export" else synthesis(network, kind)
    versions = {"timm": timm.__version__, **describe_machine(torch.device("cpu"))["versions"]}
    return {
        "network": name,
        "kind": kind,
        **found,
        "peak_mib": _peak(),
        "peak_mib_before": before,
        "versions": versions,
        "hardware": describe_machine(torch.device("cpu"))["hardware"],
    }


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def synthesis(network: nn.Module, method: str) -> dict[str, Any]:
    """CPU seconds of a step for a method's images; with stopping, after each stop too."""
    source = find_method(method).joined().images
    assert isinstance(source, Pixels)
    images = torch.randn(BATCH, *SPEC.shape, requires_grad=True)
    watched = Watched(network, torch.zeros(2, *SPEC.shape), source.teacher_taps)
    if source.stopping is None:
        return {"images": BATCH, "step_cpu_seconds": _step(watched, source, images)}
    place = find_token_set(network, images.detach()[:2])
    tokens = Tokens(source.stopping, Place(place, (1, place.patches), (1, 1)), network)
    patches, seconds = [place.patches], [_step(watched, source, images)]
    for _ in source.stopping.at:
        tokens.stop(images.detach())
        assert tokens.kept is not None
        with tokens.remaining(Moved()):
            seconds.append(_step(watched, source, images))
        patches.append(tokens.kept.shape[1])
    # Of the whole schedule, each stretch between two stops has its part.
    ends = [*source.stopping.at, 1.0]
    lengths = [end - start for start, end in zip([0.0, *ends], ends, strict=False)]
    mean = sum(length * each for length, each in zip(lengths, seconds, strict=True))
    return {
        "images": BATCH,
        "patches": patches,
        "cpu_seconds_after_stops": seconds,
        "step_cpu_seconds": mean,
    }


def _step(watched: Watched, source: Pixels, images: Tensor) -> float:
    """CPU seconds of the quickest step; the first is not counted."""
    batch = Batch(images, torch.arange(BATCH), torch.arange(BATCH))
    players = Players(watched, watched)
    seconds = []
    for _ in range(1 + STEPS):
        start = time.process_time()
        step = Step(batch, players, Rng.seeded(0, images.device), student_learns=False)
        losses = [w.weight * w.term(step.seen_by(w.term)) for w in weighted(source.terms)]
        torch.autograd.grad(_total(losses), [images])
        seconds.append(time.process_time() - start)
    return min(seconds[1:])


def accuracy(method: str, seed: str) -> dict[str, Any]:
    """The digits' transformer at W4A4, by the quick preset."""
    start = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        quantize(
            demo.transformer_teacher(),
            "w4a4",
            method,
            preset="quick",
            data=demo.HELD_OUT,
            device="cpu",
            seed=int(seed),
            out=Path(folder) / "out",
            quiet=True,
        )
        manifest = open_result(Path(folder) / "out").manifest
    return {
        "method": method,
        "seed": int(seed),
        "top1": manifest["accuracy"]["student"]["top1"],
        "teacher_top1": manifest["accuracy"]["teacher"]["top1"],
        "n": manifest["accuracy"]["student"]["n"],
        "phases": manifest["phases"],
        "cpu_seconds": time.process_time() - start,
        "protocol": manifest["protocol"],
    }


def _total(losses: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(losses)).sum()


def exported(network: nn.Module) -> dict[str, Any]:
    """What is quantized, what the 8-bit file runs on integers, and its verification."""
    images = torch.randn(2, *SPEC.shape)
    student, coverage = quantize_network(network, Scheme(Bits.parse(BITS), "operands"), images)
    student.observe(True)
    with torch.no_grad():
        student(images)
    student.fix()
    start = time.process_time()
    file = onnx_file(student, _MANIFEST, SPEC, "int8box", layout=None, two_bit=False)
    return {
        "bits": BITS,
        "layers": len(student.quantized_layers()),
        "operands": len(coverage.operands),
        "float_multiplications": coverage.float_multiplications,
        "left_in_float": coverage.left_in_float,
        "float_functions": coverage.float_functions,
        "mib": len(file.data) / 2**20,
        "export_cpu_seconds": time.process_time() - start,
        "in_float": file.in_float,
        "verification": asdict(file.verification),
    }


def write() -> None:
    """The page, from the record."""
    write_page(PATH, page(runs_on(PATH)))


def page(runs: Sequence[dict[str, Any]]) -> Iterator[str]:
    """The tables."""
    yield f"# {TITLE}"
    yield ""
    yield (
        "Networks of timm at 224 pixels. Random weights say nothing about accuracy. They show "
        "whether every matrix product is quantized, whether the file is exported and computes what "
        "the student computes, and what a step of synthesis costs."
    )
    yield ""
    yield from _exports([run for run in runs if run["kind"] == "export"])
    yield from _steps([run for run in runs if "step_cpu_seconds" in run])
    yield from _accuracies([run for run in runs if run["network"] == TRAINED])
    hardware = runs[0]["hardware"]
    versions = ", ".join(f"{name} {version}" for name, version in runs[0]["versions"].items())
    yield (
        f"{hardware['cpu']}, {hardware['threads']} thread, shared with other work: CPU seconds are "
        f"the ones to compare. Versions: {versions}. Written by "
        "`benchmarks/transformer_structure.py`."
    )


def _exports(runs: Sequence[dict[str, Any]]) -> Iterator[str]:
    yield f"## Products and files ({BITS.upper()}, placement operands, 8-bit file)"
    yield ""
    yield (
        "| network | layers | operands of other products and GELU | multiplications left in float "
        "by the student | products on integers, in float | convolutions on integers, in float | "
        "quantizers compared | most codes that differ | verified in | CPU s | MiB |"
    )
    yield f"|---|{'--:|' * 7}---|--:|--:|"
    for run in runs:
        found = run["verification"]
        yield (
            f"| {run['network']} | {run['layers']} | {run['operands']} | "
            f"{run['float_multiplications']} | "
            f"{found['integer_products']}, {found['float_products']} | "
            f"{found['integer_convolutions']}, {found['float_convolutions']} | "
            f"{found['layers']} | {found['flipped']:.3%} | {_runtimes(found)} | "
            f"{run['export_cpu_seconds']:.0f} | {run['mib']:.1f} |"
        )
    yield ""
    yield (
        "Each quantizer got the student's codes in ONNX Runtime, and its own codes were compared; "
        "the outputs of the whole file were compared in each runtime named. The patch embedding is "
        "the one convolution."
    )
    yield ""
    for run in runs:
        reasons = "; ".join(run["in_float"]) or "nothing"
        yield f"- {run['network']}: in float in the file: {reasons}."
        yield from (f"  Warning: {each}." for each in run["verification"]["warnings"])
    yield ""


def _runtimes(verification: dict[str, Any]) -> str:
    return " and ".join(verification["agreement"])


def _steps(runs: Sequence[dict[str, Any]]) -> Iterator[str]:
    yield f"## A step of synthesis ({BATCH} images, forward and backward)"
    yield ""
    yield "| network | images of | CPU s a step | peak MiB |"
    yield "|---|---|--:|--:|"
    for run in runs:
        yield (
            f"| {run['network']} | {run['kind']} | {run['step_cpu_seconds']:.2f} | "
            f"{run['peak_mib']:.0f} ({run['peak_mib_before']:.0f} before) |"
        )
    yield ""
    yield (
        "With +smi the step is the mean over the schedule. CPU seconds of a step after 0, 1, 2, 3 "
        "and 4 stops:"
    )
    yield ""
    for run in runs:
        if "patches" in run:
            pairs = zip(run["patches"], run["cpu_seconds_after_stops"], strict=True)
            stops = ", ".join(f"{seconds:.2f} ({patches} patches)" for patches, seconds in pairs)
            yield f"- {run['network']}, {run['kind']}: {stops}."
    yield ""


def _accuracies(runs: Sequence[dict[str, Any]]) -> Iterator[str]:
    yield "## What stopping costs: the digits' transformer at W4A4"
    yield ""
    yield "| method | top-1, % | each seed | CPU s of the whole run |"
    yield "|---|--:|---|--:|"
    for method in dict.fromkeys(run["method"] for run in runs):
        own = [run for run in runs if run["method"] == method]
        found = [run["top1"] for run in own]
        seconds = statistics.mean(run["cpu_seconds"] for run in own)
        each = ", ".join(f"{top1:.1f}" for top1 in found)
        yield f"| {method} | {spread(found)} | {each} | {seconds:.0f} |"
    yield ""
    if runs:
        yield (
            f"Full precision: {runs[0]['teacher_top1']:.2f} % of {runs[0]['n']} held-out digits. "
            "Quick presets, operands of all products quantized, the last iteration. Of the 16 "
            "patches, 2 are left after four stops."
        )
        yield ""


def main() -> None:
    """One cell in this process, or all that are missing."""
    parser = argparse.ArgumentParser(description=TITLE)
    parser.add_argument("--cell", nargs=2)
    cell = parser.parse_known_args()[0].cell
    if cell:
        print(json.dumps(measured(*cell)))
    else:
        grow(PATH, TITLE, missing, in_own_process, write)


if __name__ == "__main__":
    main()
