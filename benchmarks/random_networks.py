"""Random networks through whole runs: quantize, save, load, export, compare.

``python benchmarks/random_networks.py [--count 500]`` goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from hypothesis import HealthCheck, Phase, given, seed, settings

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "support"))

import dreamquant  # noqa: E402
from dreamquant.errors import DreamQuantError  # noqa: E402
from dreamquant.jobs.doctor import examine  # noqa: E402
from dreamquant.results.files import write_json  # noqa: E402
from network_plans import PLANS, Plan, build  # noqa: E402
from once import operators_of_onnx_read_once, probe_images_drawn_once  # noqa: E402
from pages import write_page  # noqa: E402

RECORD = ROOT / "docs" / "results" / "random-networks.json"
PAGE = RECORD.with_suffix(".md")
CHUNK = 10
METHODS = ("squant", "nagel")


def whole_way(plan: Plan, method: str, folder: Path) -> str:
    """Quantize, save, load, export and compare a network; "" or the refusal in words.

    Raises:
        AssertionError: the loaded network is not the one that was quantized.
        Exception: anything that is no refusal in words.
    """
    options: dict[str, Any] = {"device": "cpu", "quiet": True, "precision": "32"}
    try:
        result = dreamquant.quantize(
            build(plan), "w4a8", method, input=plan.input, out=folder, **options
        )
        loaded = dreamquant.load(folder, network=build(plan))
        x = torch.randn(2, *plan.input.shape)
        with torch.no_grad():
            assert torch.equal(loaded(x), result.model(x)), "the loaded network is another"
        dreamquant.export_result(result, to=folder)
    except DreamQuantError as refusal:
        return f"{type(refusal).__name__}: {refusal.what}"
    return ""


def chunk(number: int) -> list[dict[str, str]]:
    """The outcome of ten networks, generated from ``number``."""
    rows: list[dict[str, str]] = []

    @seed(number)
    @settings(
        max_examples=CHUNK,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(PLANS)
    def go(plan: Plan) -> None:
        rows.append({"plan": repr(plan), **_one(plan, METHODS[number % len(METHODS)])})

    go()
    return rows


def _one(plan: Plan, method: str) -> dict[str, str]:
    with tempfile.TemporaryDirectory() as folder:
        try:
            refusal = whole_way(plan, method, Path(folder) / "out")
        except Exception:  # what this benchmark looks for: it is put on record and counted
            return {"method": method, "outcome": "fault", "why": traceback.format_exc()[-1500:]}
    return {"method": method, "outcome": "refused" if refusal else "ok", "why": refusal}


def page(record: dict[str, Any]) -> Iterator[str]:
    """The page of a record, line by line."""
    rows = [row for chunk_rows in record["chunks"].values() for row in chunk_rows]
    counts = Counter(row["outcome"] for row in rows)
    yield "# Random networks, from quantization to verified files"
    yield ""
    yield (
        f"{len(rows)} networks drawn at random (depth, blocks, activations, grouping, strides, "
        "pooling, one to three dimensions, shared modules, in-place operations) were quantized to "
        f"W4A8 by {' or '.join(METHODS)}, saved, loaded, exported to both files and verified: "
        f"**{counts['ok']} ok, {counts['refused']} refused with a message, {counts['fault']} "
        f"faults**."
    )
    yield ""
    yield f"Processor: {record['processor']}. `python benchmarks/random_networks.py` continues."
    reasons = Counter(row["why"].splitlines()[0] for row in rows if row["outcome"] == "refused")
    if reasons:
        yield from ("", "| refused | networks |", "|---|---|")
        yield from (f"| {why} | {count} |" for why, count in reasons.most_common())
    for row in rows:
        if row["outcome"] == "fault":
            yield from ("", f"Fault: `{row['plan']}`", "", "```", row["why"], "```")


def main() -> None:
    """Go on until ``--count`` networks have been tried."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=500)
    count = parser.parse_args().count
    record = json.loads(RECORD.read_text()) if RECORD.exists() else {"chunks": {}}
    record["processor"] = examine()["devices"]["cpu"]
    with probe_images_drawn_once(), operators_of_onnx_read_once():
        for number in range(-(-count // CHUNK)):
            if str(number) not in record["chunks"]:
                record["chunks"][str(number)] = chunk(number)
                write_json(RECORD, record)
                write_page(PAGE, page(record))
                outcomes = Counter(row["outcome"] for row in record["chunks"][str(number)])
                print(number, outcomes, flush=True)


if __name__ == "__main__":
    main()
