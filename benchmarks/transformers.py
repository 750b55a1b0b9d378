"""Transformers and sound without data: methods side by side, networks of both kinds.

    python benchmarks/transformers.py [--data DIR] [--seeds 0] [--minutes 10] [--only kwt1 w8a8]

Clips are the first 300 of each set. Of sound two numbers are told, as pictures have them in their
mean and deviation: those of all features. KWT-1 by the default method is told nothing, and measured
on all clips: its file alone is given, as on the command line. Finished runs are kept in
``docs/results/`` and not repeated; no run begins once the minutes are over, so the script may be
stopped and started again at any time. A method that refuses a network is on record with its reason.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from dreamquant import InputSpec, Method, load_network, quantize
from dreamquant.errors import NetworkError
from dreamquant.methods import METHODS
from dreamquant.methods.method import Preset
from dreamquant.networks import demo
from dreamquant.networks.load import Network, wrap_module
from dreamquant.recovery.calibrate import Calibrate
from dreamquant.synthesis.generator import Generator
from dreamquant.synthesis.pixels import Pixels
from dreamquant.synthesis.procedural import WhiteNoise
from dreamquant.terms.total_variation import TotalVariation
from grid import DATA, ROOT, Grid, spread
from pages import cpu_seconds

TITLE = "Transformers and sound without data"
CLIPS, CLASSES = 300, 12
BITS = ("w8a8", "w4a8", "w4a4", "w3a3")
NETWORKS = ("digits", "default", "kwt1", "dscnn")
NAMES = {
    "digits": "digits' transformer",
    "default": "KWT-1, nothing told",
    "kwt1": "KWT-1, mean and deviation told",
    "dscnn": "DS-CNN",
}
CONVOLUTIONAL = ("squant", "noise", "gdfq", "adadfq", "dqdg", "minutes")
ATTENTIVE = ("squant", "noise", "psaq_vit", "sardfq", "mimiq", "maskaq")
METHODS_OF = {
    "digits": ATTENTIVE,
    "default": ("auto",),
    "kwt1": ATTENTIVE,
    "dscnn": CONVOLUTIONAL,
}
PLACEMENTS = {
    "digits": "operands",
    "default": "layer-input",
    "kwt1": "operands",
    "dscnn": "layer-input",
}
# Fewer images and steps than the quick presets have: minutes of one core, for all of a row alike.
_IMAGES, _STEPS, _ITERATIONS = 64, 30, 100


class Subject(NamedTuple):
    """A network and its clips."""

    network: Network
    data: Path


class OneChannel(nn.Module):
    """A network of features, fed with normalised ones of one channel.

    Args:
        inner: takes features, with one channel or without.
        mean: of all features.
        std: likewise.
        channel: whether the inner network has the channel too.
    """

    def __init__(self, inner: nn.Module, mean: float, std: float, *, channel: bool) -> None:
        super().__init__()
        self.inner, self.mean, self.std, self.channel = inner, mean, std, channel

    def forward(self, x: Tensor) -> Tensor:
        """Logits for ``x`` (B, 1, frames, coefficients)."""
        x = x * self.std + self.mean
        return self.inner(x if self.channel else x.squeeze(1))  # type: ignore[no-any-return]


def subject(name: str, data: Path, folder: Path) -> Subject:
    """A network by its name; clips of sound are written into ``folder``."""
    if name == "digits":
        return Subject(demo.transformer_teacher(), demo.HELD_OUT)
    clips = "data_kws_speechcommands_mfcc98x40_1200.npz"
    if name == "default":
        zoo = data / "zoo"
        given = load_network(f"{zoo / 'kws_kwt1'}.py:make", weights=zoo / "kws_kwt1.safetensors")
        return Subject(given, zoo / clips)
    if name == "kwt1":
        return _sound(data / "zoo", "kws_kwt1", clips, folder)
    return _sound(data / "zoo", "kws_mlperf_dscnn", "data_kws_eembc1000_mfcc.npz", folder)


def _sound(zoo: Path, factory: str, clips: str, folder: Path) -> Subject:
    spec = importlib.util.spec_from_file_location(factory, zoo / f"{factory}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    inner = module.make()
    inner.load_state_dict(load_file(zoo / f"{factory}.safetensors"))
    with np.load(zoo / clips) as arrays:
        features, labels = _features(arrays), arrays["labels"][:CLIPS]
    mean, std = (float(value) for value in (features.mean(), features.std()))
    folder.mkdir(parents=True, exist_ok=True)
    first = features[:CLIPS].reshape(CLIPS, 1, *features.shape[-2:])
    np.savez(folder / f"{factory}.npz", features=first, labels=labels)
    wrapped = OneChannel(inner, mean, std, channel=factory == "kws_mlperf_dscnn")
    shape = (1, *features.shape[-2:])
    network = wrap_module(wrapped, InputSpec(shape, (mean,), (std,), CLASSES))
    return Subject(network, folder / f"{factory}.npz")


def _features(arrays: Any) -> np.ndarray:
    if "features" in arrays:
        return np.asarray(arrays["features"], np.float32)
    codes = arrays["features_int8"].astype(np.float32)
    return np.asarray((codes - arrays["zero_point"]) * arrays["scale"])


def method(name: str) -> Method:
    """A method with few images and steps; ``noise`` sets ranges on white noise and rounds."""
    if name == "noise":
        noise = Pixels(
            [TotalVariation()], size=_IMAGES, batch=_IMAGES, steps=1, lr=0.0, start=WhiteNoise()
        )
        return replace(
            METHODS["psaq_vit"],
            name="noise",
            images=noise,
            recovery=(Calibrate(count=_IMAGES, batch=_IMAGES),),
            presets={"quick": Preset()},
        )
    found = METHODS[name]
    if name == "auto":
        return found
    quick = found.presets["quick"]
    images = {**quick.images}
    if isinstance(found.images, Pixels):
        images |= {"size": _IMAGES, "batch": _IMAGES, "steps": _STEPS}
    recovery = {kind: {**numbers} for kind, numbers in quick.recovery.items()}
    if isinstance(found.images, Generator):
        images |= {"batch": 16, "alone": _ITERATIONS, "observe": _ITERATIONS}
    lengths = {
        "Train": {"iterations": _ITERATIONS, "batch": 16},
        "Reconstruct": {"steps": _STEPS},
        "Redream": {"steps": _STEPS // 2},
    }
    for part in found.recovery:
        kind = type(part).__name__
        counted = {"count": _IMAGES, "batch": 32} if hasattr(part, "count") else {}
        recovery[kind] = recovery.get(kind, {}) | counted | lengths.get(kind, {})
    return replace(found, presets={"quick": replace(quick, images=images, recovery=recovery)})


def points(options: argparse.Namespace) -> Iterator[tuple[int, str, str, str]]:
    """Seed, network, bits and method of every run, the most telling first."""
    for seed, bits, name in product(options.seeds, BITS, NETWORKS):
        for each in METHODS_OF[name]:
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
    before = cpu_seconds()
    try:
        result = quantize(
            its.network,
            bits,
            method(each),
            seed=seed,
            placement=PLACEMENTS[name],
            data=its.data,
            device="cpu",
            precision="32",
            quiet=True,
        )
    except NetworkError as error:
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
        "training_cpu_seconds": result.manifest["timings"]["training_cpu_seconds"],
        "cpu_seconds": cpu_seconds() - before,
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
        f"Where a cell has a spread, seeds 0 to 2, otherwise seed 0. Of `auto`, all parts as they "
        "are: inputs of layers and sums are quantized, products inside attention are float. All "
        f"other rows: {_IMAGES} images of {_STEPS} steps, {_ITERATIONS} iterations if a student "
        "is trained: far fewer than in the papers. `squant` needs no images; `noise` sets ranges "
        "with the least squared error on white noise. In transformers, operands of all products "
        "are "
        "quantized; in the convolutional network, inputs of all layers. CPU seconds are those of "
        "the "
        "whole run. Values are percentages of correct clips or images."
    )


def _section(name: str, runs: list[dict[str, Any]]) -> Iterable[str]:
    measured = [run for run in runs if "top1" in run]
    if measured:
        first = measured[0]
        yield f"## {NAMES[name]}: {first['teacher_top1']:.2f} % of {first['n']} in full precision"
    else:
        yield f"## {NAMES[name]}"
    yield ""
    methods = list(dict.fromkeys(run["method"] for run in runs))
    bits = [each for each in BITS if any(run["bits"] == each for run in runs)]
    yield f"| method | {' | '.join(f'{each}, %' for each in bits)} | CPU s |"
    yield f"|---|{'--:|' * (len(bits) + 1)}"
    for each in methods:
        own = [run for run in runs if run["method"] == each]
        cells = [_cell([run for run in own if run["bits"] == one]) for one in bits]
        seconds = [run["cpu_seconds"] for run in own if "top1" in run]
        mean = f"{sum(seconds) / len(seconds):.0f}" if seconds else "–"
        yield f"| {each} | {' | '.join(cells)} | {mean} |"
    for reason in dict.fromkeys(run["refused"] for run in runs if "refused" in run):
        yield ""
        yield f"Refused: {reason}."


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
