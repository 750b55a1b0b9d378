"""Transformers and sound without data: methods side by side on equal seconds of one core.

    python benchmarks/transformers.py [--data DIR] [--seeds 0] [--minutes 10] [--only kwt1 w8a8]

Every method has the same seconds of one core, its images included; its quick preset is stretched or
shortened to them, as ``--budget`` does. A machine that others use too gives a run more or less of a
core, so the budget counts the processor's seconds here. KWT-1 has no batch norm that the scale of
its features could be read from: their mean and deviation are told. KWT-1 by the default method is
told nothing, has no budget, and is measured on all clips: its file alone is given, as on the
command line. Finished runs are kept in ``docs/results/`` and not repeated; no run begins once the
minutes are over, so the script may be stopped and started again at any time. A method that refuses
a network, or that does not fit into the seconds, is on record with its reason.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import torch

import cifar10_transformer
from dreamquant import Method, load_network, quantize
from dreamquant.errors import NetworkError, TrainingError
from dreamquant.methods import METHODS
from dreamquant.methods.method import Preset
from dreamquant.networks.load import Network
from dreamquant.recovery.calibrate import Calibrate
from dreamquant.synthesis.pixels import Pixels
from dreamquant.synthesis.procedural import WhiteNoise
from dreamquant.terms.total_variation import TotalVariation
from grid import DATA, ROOT, Grid, first, spread
from pages import listed

TITLE = "Transformers and sound without data"
CLIPS, IMAGES = 300, 1000
BITS = ("w8a8", "w4a8", "w4a4", "w3a3")
_IN_TURN = ("w4a4", "w8a8", "w4a8", "w3a3")  # the most telling first
NETWORKS = ("default", "kwt1", "cifar10", "dscnn")
NAMES = {
    "default": "KWT-1 by the default method, nothing told",
    "kwt1": "KWT-1",
    "cifar10": "CIFAR-10 transformer",
    "dscnn": "DS-CNN",
}
METHODS_SHOWN = ("noise", "psaq_vit", "mimiq", "sardfq", "maskaq", "dqdg", "minutes", "auto")
PLACEMENTS = {
    "default": "layer-input",
    "kwt1": "operands",
    "cifar10": "operands",
    "dscnn": "layer-input",
}
SECONDS = 60  # of one core, for each run
_NOISE = 64  # images


class Subject(NamedTuple):
    """A network and what it is measured on."""

    network: Network
    data: Path


def subject(name: str, data: Path, folder: Path) -> Subject:
    """A network by its name; clips that are fewer than all are written into ``folder``."""
    zoo = data / "zoo"
    if name == "cifar10":
        network = cifar10_transformer.teacher()
        return Subject(network, first(data / "cifar10" / "test_lossless.npz", IMAGES, network))
    if name == "dscnn":
        return Subject(_sound(zoo, "kws_mlperf_dscnn"), zoo / "data_kws_eembc1000_mfcc.npz")
    network = _sound(zoo, "kws_kwt1")
    clips = zoo / "data_kws_speechcommands_mfcc98x40_1200.npz"
    return Subject(network, clips) if name == "default" else _told(network, clips, folder)


def _sound(zoo: Path, factory: str) -> Network:
    return load_network(f"{zoo / factory}.py:make", weights=zoo / f"{factory}.safetensors")


def _told(network: Network, clips: Path, folder: Path) -> Subject:
    """The network with its features' mean and deviation, and the first clips."""
    with np.load(clips) as arrays:
        features, labels = arrays["features"].astype(np.float32), arrays["labels"]
    folder.mkdir(parents=True, exist_ok=True)
    few = folder / "kwt1.npz"
    np.savez(few, features=features[:CLIPS], labels=labels[:CLIPS])
    scaled = replace(
        network.input, centre=(float(features.mean()),), spread=(float(features.std()),)
    )
    return Subject(replace(network, input=scaled), few)


def method(name: str) -> Method:
    """A method by its name; ``noise`` sets ranges on white noise and rounds."""
    if name != "noise":
        return METHODS[name]
    noise = Pixels(
        [TotalVariation()], size=_NOISE, batch=_NOISE, steps=1, lr=0.0, start=WhiteNoise()
    )
    return replace(
        METHODS["psaq_vit"],
        name="noise",
        images=noise,
        recovery=(Calibrate(count=_NOISE, batch=_NOISE),),
        presets={"quick": Preset()},
    )


def points(options: argparse.Namespace) -> Iterator[tuple[int, str, str, str]]:
    """Seed, network, bits and method of every run, the most telling first."""
    for seed, bits, name in product(options.seeds, _IN_TURN, NETWORKS):
        for each in ("auto",) if name == "default" else METHODS_SHOWN:
            if not options.only or {name, bits, each} >= set(options.only):
                yield seed, name, bits, each


def main() -> None:
    """Run what is missing while there is time, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA, help="folder of weights and clips")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--only", nargs="+", default=[], help="network, bits and method to run")
    options = parser.parse_args()
    grid = Grid("transformers", TITLE)
    end = time.monotonic() + 60 * options.minutes
    known: dict[str, Subject] = {}
    for seed, name, bits, each in points(options):
        if time.monotonic() > end:
            break
        if _has(grid, seed, name, bits, each):
            continue
        if name not in known:
            known[name] = subject(name, options.data, ROOT / "out" / "transformers")
        grid.add(_run(known[name], seed, name, bits, each))
        grid.write_page(_page(grid.runs))
    grid.write_page(_page(grid.runs))


def _has(grid: Grid, seed: int, name: str, bits: str, each: str) -> bool:
    place = (seed, name, bits, each)
    return any((r["seed"], r["network"], r["bits"], r["method"]) == place for r in grid.runs)


def _run(its: Subject, seed: int, name: str, bits: str, each: str) -> dict[str, Any]:
    place = {"network": name, "bits": bits, "method": each, "seed": seed}
    timed = name != "default" and each != "noise"
    before = time.process_time()
    try:
        with patch.multiple(time, monotonic=time.process_time, perf_counter=time.process_time):
            result = quantize(
                its.network,
                bits,
                method(each),
                seed=seed,
                budget=f"{SECONDS}s" if timed else None,
                placement=PLACEMENTS[name],
                data=its.data,
                device="cpu",
                precision="32",
                quiet=True,
            )
    except (NetworkError, TrainingError) as error:
        return {**place, "refused": error.what}
    accuracy = result.manifest["accuracy"]
    return {
        **place,
        "teacher_top1": accuracy["teacher"]["top1"],
        "top1": accuracy["student"]["top1"],
        "ci95": accuracy["student"]["ci95"],
        "n": accuracy["student"]["n"],
        "agreement": result.manifest["agreement"]["percent"],
        "placement": PLACEMENTS[name],
        "seconds": SECONDS if timed else None,
        "cpu_seconds": time.process_time() - before,
        "load": os.getloadavg()[0],
        "versions": result.manifest["versions"],
        "hardware": result.manifest["hardware"],
    }


def _page(runs: list[dict[str, Any]]) -> Iterable[str]:
    yield f"# {TITLE}"
    for name in NETWORKS:
        its = [run for run in runs if run["network"] == name]
        if its:
            yield ""
            yield from _section(name, its)
    yield ""
    yield (
        "Values are percentages of correct clips or images: mean and deviation of two or three "
        f"seeds, or seed 0 alone. Each method has {SECONDS} s of one core, images and measuring "
        "included; its quick preset is fitted to them. `noise` sets ranges with the least "
        "squared error on white noise and rounds; it and the default method take what they "
        "need, and `auto` ends early where no further stage suits the network. In transformers, "
        "operands of all matrix products are quantized; in the convolutional network, inputs of "
        "all layers. `auto` quantizes the inputs of sums too, and gives them and the image 8 "
        "bits; by the other methods the image has the bits of activations. The default method "
        "keeps products inside attention in float. KWT-1 has no batch norm that the scale of "
        "its features could be read from, so methods are told their mean and deviation, the "
        "default method excepted. Published schedules are hundreds of times as long as these "
        "seconds: the page shows what is of use within a minute, not which paper is better."
    )
    if timed := [run for run in runs if run.get("load") is not None]:
        machine, loads = timed[-1]["hardware"], [run["load"] for run in timed]
        yield ""
        yield (
            f"{machine['cpu']}, {machine['threads']} thread. The machine did other work (load "
            f"average {min(loads):.1f} to {max(loads):.1f} when runs ended), so seconds are those "
            f"of the processor. {listed(timed[-1]['versions'])}."
        )


def _section(name: str, runs: list[dict[str, Any]]) -> Iterable[str]:
    measured = [run for run in runs if "top1" in run]
    if measured:
        first = measured[0]
        yield f"## {NAMES[name]}: {first['teacher_top1']:.2f} % of {first['n']} in full precision"
    else:
        yield f"## {NAMES[name]}"
    yield ""
    methods = [each for each in METHODS_SHOWN if any(run["method"] == each for run in runs)]
    bits = [each for each in BITS if any(run["bits"] == each for run in runs)]
    yield f"| method | {' | '.join(f'{each}, %' for each in bits)} | CPU s |"
    yield f"|---|{'--:|' * (len(bits) + 1)}"
    for each in methods:
        own = [run for run in runs if run["method"] == each]
        cells = [_cell([run for run in own if run["bits"] == one]) for one in bits]
        seconds = [run["cpu_seconds"] for run in own if "top1" in run]
        mean = f"{sum(seconds) / len(seconds):.0f}" if seconds else "–"
        yield f"| {each} | {' | '.join(cells)} | {mean} |"
    refused: dict[str, list[str]] = {}
    for run in runs:
        if "refused" in run and run["method"] not in refused.setdefault(run["refused"], []):
            refused[run["refused"]].append(run["method"])
    for reason, names in refused.items():
        yield ""
        yield f"Refused by {', '.join(names)}: {reason}."


def _cell(runs: list[dict[str, Any]]) -> str:
    if not runs:
        return ""
    if "refused" in runs[0]:
        return "refused"
    found = [run["top1"] for run in runs]
    return spread(found) if len(found) > 1 else f"{found[0]:.2f}"


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
