"""ResNet-56 taught to a ResNet-20, a third of its size, without data, and then put on 8 bits.

    python benchmarks/distillation.py [--iterations 2000]

A stopped run goes on where it was, as long as its folder is there.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dreamquant import distill, open_result
from dreamquant.results.files import write_json
from grid import DATA, ROOT, cifar
from pages import RESULTS, listed, write_page
from presets import length

PATH = RESULTS / "distillation-cifar10.json"
TITLE = "ResNet-56 to ResNet-20, CIFAR-10, no data"
STUDENT = f"{Path(__file__).with_name('networks.py')}:cifar10_resnet20"


def main() -> None:
    """Run it, or go on with it, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA, help="folder of weights and images")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "distillation")
    parser.add_argument("--iterations", type=int, default=2000)
    options = parser.parse_args()
    network, images = cifar(options.data, "cifar10_resnet56")
    distill(
        network,
        STUDENT,
        inherit=True,
        bits="w8a8",
        iterations=options.iterations,
        data=images,
        precision="bf16",
        out=options.out,
        resume=(options.out / "distilled").exists(),
    )
    record = _record(options.out)
    write_json(PATH, record)
    write_page(PATH, _page(record))


def _record(folder: Path) -> dict[str, Any]:
    before, after = open_result(folder / "distilled").manifest, open_result(folder).manifest
    names = ("parameters", "accuracy", "agreement", "timings", "protocol", "versions", "hardware")
    kept = {name: before[name] for name in names}
    quantized = {name: after[name] for name in names[1:5]}
    schedule = length(before["method"])
    return {"title": TITLE, "method": "adadfq", "schedule": schedule, **kept, "w8a8": quantized}


def _page(record: dict[str, Any]) -> Iterable[str]:
    accuracy, size = record["accuracy"], record["parameters"]
    eight = record["w8a8"]["accuracy"]["student"]
    schedule = record["schedule"]
    seconds = record["timings"]["training_seconds"]
    yield f"# {TITLE}"
    yield ""
    yield "| network | parameters | top-1 % |"
    yield "|---|---|---|"
    yield f"| teacher, ResNet-56 | {size['teacher']:,} | {accuracy['teacher']['top1']:.2f} |"
    yield f"| student, ResNet-20 | {size['student']:,} | {accuracy['student']['top1']:.2f} |"
    yield f"| the same at W8A8 | {size['student']:,} | {eight['top1']:.2f} |"
    yield ""
    yield (
        f"One seed ({record['protocol']['seed']}); terms of AdaDFQ; the student starts from the "
        "teacher's tensors with equal names and shapes (--inherit); "
        f"{schedule['iterations']} iterations of {schedule['batch']} images in bfloat16, "
        f"{seconds:.0f} s of training on a machine that did other work; the "
        f"last iteration is reported, on {accuracy['student']['n']} lossless test images."
    )
    yield ""
    yield f"Hardware: {record['hardware']['cpu']}. Versions: {listed(record['versions'])}."


if __name__ == "__main__":
    main()
