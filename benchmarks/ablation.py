"""What each part of the default method is worth.

    python benchmarks/ablation.py [--limit SECONDS]

A cell is a network, the method with one part changed, and a seed. Cells on record are not run
again. Every run takes as many steps as the method has, without a budget.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import torch

from cells import measured
from dreamquant import Method
from dreamquant.methods import METHODS
from dreamquant.methods.method import Preset
from dreamquant.recovery.anytime import Anytime, Stage
from dreamquant.recovery.closed_form import RoundByLeastSquares
from dreamquant.recovery.part import Recovery
from dreamquant.synthesis.pixels import Pixels
from dreamquant.synthesis.procedural import WhiteNoise
from grid import first, spread
from kit import CASES
from pages import RESULTS, grow, runs_on, write_page

PATH = RESULTS / "ablation.json"
TITLE = "The default method with one part changed"
NETWORKS = {  # bits, scheme, images measured on
    "ResNet-20 CIFAR-10": ("w3a3", "paper", 2000),
    "DS-CNN": ("w4a4", "integer", 1000),
    "MobileNetV1 0.75": ("w4a4", "integer", 300),
}
SEEDS = ("0", "1", "2")
Stages = tuple[Stage, ...]


def without(number: int) -> Callable[[Stages], Stages]:
    """Leave a stage out."""
    return lambda stages: (*stages[:number], *stages[number + 1 :])


def until(number: int) -> Callable[[Stages], Stages]:
    """Only the first stages."""
    return lambda stages: stages[:number]


def _each(change: Callable[[Recovery], Recovery]) -> Callable[[Stages], Stages]:
    def changed(stages: Stages) -> Stages:
        return tuple(replace(s, recovery=tuple(map(change, s.recovery))) for s in stages)

    return changed


def _not_adapted(part: Recovery) -> Recovery:
    return replace(part, adapt=False) if isinstance(part, RoundByLeastSquares) else part


def _from_noise(stages: Stages) -> Stages:
    return tuple(
        replace(s, images=replace(s.images, start=WhiteNoise()))
        if isinstance(s.images, Pixels)
        else s
        for s in stages
    )


VARIANTS: dict[str, Callable[[Stages], Stages]] = {
    "whole": lambda stages: stages,
    "rounding alone": until(1),
    "without least squares on procedural images": without(1),
    "without dreamed images": until(2),
    "without training": until(3),
    "batch norms not adapted": _each(_not_adapted),
    "images dreamed from noise": _from_noise,
}


def method_of(variant: str) -> Method:
    """The default method with its stages changed, in both of its presets."""
    auto = METHODS["auto"]
    (anytime,) = auto.recovery
    assert isinstance(anytime, Anytime)
    change = VARIANTS[variant]
    large = auto.presets["quick-imagenet"].recovery["Anytime"]
    return replace(
        auto,
        recovery=(replace(anytime, stages=change(anytime.stages)),),
        presets={
            "quick": Preset(),
            "quick-imagenet": Preset(
                recovery={"Anytime": {**large, "stages": change(large["stages"])}}
            ),
        },
    )


def missing() -> Iterator[tuple[str, str, str]]:
    """Cells that are not on record, the first seed first."""
    done = {(run["network"], run["variant"], run["seed"]) for run in runs_on(PATH)}
    cells = ((n, v, s) for s, n, v in product(SEEDS, NETWORKS, VARIANTS) if _differs(n, v))
    return (cell for cell in cells if cell not in done)


def _differs(network: str, variant: str) -> bool:
    """At 224 pixels nothing is trained."""
    return not (network == "MobileNetV1 0.75" and variant == "without training")


def measure(name: str, variant: str, seed: str) -> dict[str, Any]:
    """One run, on the first images."""
    bits, scheme, count = NETWORKS[name]
    network, path = CASES[name].load()
    images = first(path, count, network)
    run = measured(
        network,
        bits,
        method_of(variant),
        data=images,
        scheme=scheme,
        seed=int(seed),
        precision="32",
    )
    return {"network": name, "variant": variant, "seed": seed, "images": count, **run}


def page(runs: Sequence[dict[str, Any]]) -> Iterator[str]:
    """The page's lines."""
    yield from (f"# {TITLE}", "")
    yield "| network | bits | method | top-1, % | seeds | CPU s |"
    yield "|---|---|---|--:|--:|--:|"
    for name, variant in product(NETWORKS, VARIANTS):
        its = [run for run in runs if (run["network"], run["variant"]) == (name, variant)]
        if its:
            yield _row(name, variant, its)
    yield ""
    for name, (_, scheme, count) in NETWORKS.items():
        its = [run for run in runs if run["network"] == name]
        if its:
            teacher = its[0]["accuracy"]["teacher"]["top1"]
            yield f"- {name}: {teacher:.2f} % in float on {count} inputs, scheme {scheme}."
    yield ""
    yield "Two values differ where they are further apart than the spread over seeds; with one"
    yield "seed, than the interval of the images. CPU seconds include measuring."
    machines = {f"{r['hardware']['cpu']}, {r['threads']} thread" for r in runs}
    total = sum(len(SEEDS) * _differs(*pair) for pair in product(NETWORKS, VARIANTS))
    yield from ("", f"{len(runs)} of {total} cells so far, on {'; '.join(sorted(machines))}.")


def _row(name: str, variant: str, runs: Sequence[dict[str, Any]]) -> str:
    tops = [run["accuracy"]["student"]["top1"] for run in runs]
    seconds = sum(run["cpu_seconds"] for run in runs) / len(runs)
    cells = (name, runs[0]["bits"].upper(), variant, spread(tops), str(len(tops)), f"{seconds:.0f}")
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Run the cells that are missing."""
    torch.set_num_threads(1)
    grow(PATH, TITLE, missing, measure, lambda: write_page(PATH, page(runs_on(PATH))))


if __name__ == "__main__":
    main()
