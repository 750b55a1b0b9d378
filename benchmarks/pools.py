"""Pools on disk: seconds, MiB and peak memory by number and size of images.

    python benchmarks/pools.py            # all that is not on record yet

Each pool is made in a process of its own, within a time limit; one that takes longer is on record
as not finished, and nothing is extrapolated.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

import grid
from dreamquant.jobs.dream import dream
from dreamquant.results.describe import describe_machine
from dreamquant.results.files import read_json, write_json
from pages import RESULTS, cpu_seconds, write_page

PATH = RESULTS / "pools.json"
LIMIT = 240  # seconds


@dataclass(frozen=True)
class Case:
    """A pool to make.

    Attributes:
        side: of the images in pixels; the network is ResNet-20 at 32, MobileNetV1 0.75 at 224.
        count: images.
        method: of ``dreamquant dream``.
        steps: of Adam on each image; 0 of procedural ones.
    """

    side: int
    count: int
    method: str
    steps: int


# The quick ones first: whoever stops the benchmark has something on record.
CASES = (
    Case(32, 1024, "procedural", 0),
    Case(32, 5120, "procedural", 0),
    Case(32, 1024, "minutes", 1),
    Case(224, 64, "minutes", 1),
    Case(224, 1024, "procedural", 0),
    Case(32, 5120, "minutes", 1),
    Case(224, 256, "minutes", 1),
    Case(224, 5120, "procedural", 0),
)


def make(case: Case) -> dict[str, Any]:
    """One pool, in this process."""
    load = {
        32: lambda: grid.cifar(grid.DATA, "cifar10_resnet20"),
        224: lambda: grid.imagenet(grid.DATA),
    }
    network, _ = load[case.side]()
    before, started, cpu = _peak(), time.monotonic(), cpu_seconds()
    batches = -(-case.count // (256 if case.side == 32 else 32))
    iterations = case.steps * batches or None
    with tempfile.TemporaryDirectory() as folder:
        pool = dream(
            network,
            case.method,
            out=Path(folder) / "pool",
            count=case.count,
            iterations=iterations,
            device="cpu",
            precision="32",
            threads=1,
            quiet=True,
        )
        mib = pool.manifest["mib"]
    return {
        "seconds": time.monotonic() - started,
        "cpu_seconds": cpu_seconds() - cpu,
        "mib": mib,
        "peak_mib_before": before,
        "peak_mib": _peak(),
        "confidence": pool.summary()["confidence"],
    }


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measured(case: Case, limit: float) -> dict[str, Any]:
    """A case in a process of its own; ``finished`` says whether it kept within the limit."""
    command = [sys.executable, __file__, "--case", json.dumps(asdict(case))]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return {**asdict(case), "finished": False, "limit": limit}
    return {**asdict(case), "finished": True, **json.loads(done.stdout.splitlines()[-1])}


def page(record: dict[str, Any]) -> Iterator[str]:
    """The table."""
    yield "# Pools: seconds, size and memory"
    yield ""
    yield "| pixels | images | made by | steps | seconds | CPU s | MiB on disk | peak MiB |"
    yield "|--:|--:|---|--:|--:|--:|--:|--:|"
    for row in record["pools"]:
        yield _row(row)
    hardware = record["hardware"]
    yield ""
    yield (
        f"{hardware['cpu']}, {hardware['threads']} thread, shared with other work: CPU seconds "
        "are the ones to compare. Networks: ResNet-20 at 32 pixels, MobileNetV1 0.75 at 224. Peak "
        "memory is the process's largest resident size; the part before the images is Python, "
        "PyTorch and the network. Images are kept in half precision, 2 bytes a value. Dreamed "
        "pools take few steps here, for size and memory do not depend on their number; the quick "
        "presets take 100 at 32 pixels and 30 at 224. Written by `benchmarks/pools.py`."
    )


def _row(row: dict[str, Any]) -> str:
    head = f"| {row['side']} | {row['count']} | {row['method']} | {row['steps'] or '–'} |"
    if not row["finished"]:
        return f"{head} not finished in {row['limit']:.0f} | | | |"
    return (
        f"{head} {row['seconds']:.0f} | {row['cpu_seconds']:.0f} | {row['mib']:.1f} | "
        f"{row['peak_mib']:.0f} ({row['peak_mib_before']:.0f} before) |"
    )


def main() -> None:
    """Measure what is missing, and write record and page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", help="one case as JSON, in this process")
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds a pool may take")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.case:
        print(json.dumps(make(Case(**json.loads(given.case)))))
        return
    record: dict[str, Any] = read_json(PATH) if PATH.exists() else {"pools": []}
    for case in CASES:
        known = [{name: row[name] for name in asdict(case)} for row in record["pools"]]
        if asdict(case) not in known:
            record["pools"].append(measured(case, given.limit))
            write_json(PATH, {**record, **describe_machine(torch.device("cpu"))})
    record = read_json(PATH)
    write_page(PATH, page(record))


if __name__ == "__main__":
    main()
