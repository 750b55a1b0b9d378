"""Whether what is on record in docs/results reaches the goals that its pages state.

    python tools/check_results.py            # of docs/results; exits with 1 where a goal is missed

Run where records are written: a test suite has nothing to say about a file that it does not make.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import mean, stdev
from typing import Any

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results"
_SEEDS = 3


def speed(record: dict[str, Any]) -> Iterator[str]:
    """Three times the published loop at batch 16 on ResNet-20, twice elsewhere; little memory."""
    for method in ("adadfq", "gdfq"):
        cells = record[method]
        for network, batch, goal in (
            ("resnet20", "16", 3),
            ("resnet20", "200", 2),
            ("resnet18", "16", 2),
            ("mobilenet_v2", "16", 2),
        ):
            reached = cells[network][batch]["speedup"]
            if reached < goal:
                yield f"{method} on {network} at batch {batch}: {reached:.2f} times, goal {goal}"
        most = max(_memory_ratios(cells))
        if most >= 1.5:
            yield f"{method}: memory is {most:.2f} times what must be held, goal 1.5"


def _memory_ratios(cells: dict[str, Any]) -> Iterator[float]:
    for batches in cells.values():
        for cell in batches.values():
            for setting in cell.values():
                if isinstance(setting, dict) and "memory_mib" in setting:
                    yield setting["memory_mib"]["ratio"]


def schedules(record: dict[str, Any]) -> Iterator[str]:
    """The quick schedule ends no lower than the published one."""
    for bits in ("w3a3", "w4a4"):
        quick, paper = (_top1(record, bits=bits, preset=preset) for preset in ("quick", "paper"))
        if not len(quick) == len(paper) == _SEEDS:
            yield f"{bits}: {len(quick)} and {len(paper)} seeds, needed {_SEEDS}"
        elif mean(quick) < mean(paper):
            yield f"{bits}: quick ends at {mean(quick):.2f} %, paper at {mean(paper):.2f}"


def options(plain: dict[str, Any], half: dict[str, Any], compiled: dict[str, Any]) -> Iterator[str]:
    """Half precision and compiling change accuracy by less than another seed does."""
    adadfq = {"method": "adadfq", "bits": "w3a3"}
    seeds = _top1(plain, **adadfq)
    for name, chosen in (
        ("bf16", _top1(half, preset="quick", **adadfq)),
        ("compiled", _top1(compiled, **adadfq)),
    ):
        if not len(chosen) == len(seeds) == _SEEDS:
            yield f"{name}: {len(chosen)} and {len(seeds)} seeds, needed {_SEEDS}"
        elif abs(mean(chosen) - mean(seeds)) >= max(stdev(seeds), stdev(chosen)):
            yield f"{name}: {mean(chosen):.2f} % is further from {mean(seeds):.2f} than seeds are"


def deployment(record: dict[str, Any]) -> Iterator[str]:
    """ResNet-18's files are small, quick and leave no convolution in float."""
    files = {
        (run["bits"], target): file
        for run in record["runs"]
        if run["network"] == "resnet18"
        for target, file in run["files"].items()
    }
    for bits, target, most in (("w8a8", "int8box", 0.27), ("w4a4", "int4", 0.14)):
        share = files[bits, target]["share_of_float32"]
        if share > most:
            yield f"{bits} {target}: {share:.2f} of the float32 file, goal {most}"
    for bits, least in (("w8a8", 2.5), ("w4a4", 2.0)):
        box = files[bits, "int8box"]
        reached = box["timed"]["onnxruntime"]["speedup"]
        if reached < least:
            yield f"{bits} int8box: {reached:.2f} times as fast as float32, goal {least}"
        if box["verification"]["float_convolutions"]:
            yield f"{bits} int8box: convolutions are left in float"


def teachers(record: dict[str, Any]) -> Iterator[str]:
    """All runs of ResNet-20 are of one teacher, whose accuracy is its description's."""
    found = {run["protocol"]["teacher_sha256"] for run in record["runs"]}
    if len(found) != 1:
        yield f"runs of {len(found)} teachers stand on one page"
    for run in record["runs"]:
        if abs(run["teacher_top1"] - 91.68) > 0.05:
            yield f"a teacher with {run['teacher_top1']:.2f} %, described with 91.68"


CHECKS = (
    (speed, ("speed",)),
    (schedules, ("schedules-cifar10",)),
    (options, ("cifar10-resnet20", "schedules-cifar10", "options-cifar10")),
    (deployment, ("deploy",)),
    (teachers, ("cifar10-resnet20",)),
)
"""Each check and the records that it reads."""


def check(folder: Path) -> list[str]:
    """What misses its goal, a line each."""
    return [
        f"{names[0]}: {missed}"
        for goal, names in CHECKS
        for missed in goal(*(json.loads((folder / f"{name}.json").read_text()) for name in names))
    ]


def _top1(record: dict[str, Any], **wanted: Any) -> list[float]:
    """Of runs whose fields are those, one for each seed."""
    return [run["top1"] for run in record["runs"] if wanted.items() <= run.items()]


def main() -> None:
    """Print what misses its goal."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=RESULTS)
    missed = check(parser.parse_args().results)
    print("\n".join(missed) or "all records reach their goals")
    sys.exit(bool(missed))


if __name__ == "__main__":
    main()
