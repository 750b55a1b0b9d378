"""ResNet-20 on CIFAR-10 without data: min-max ranges, GDFQ and AdaDFQ at W4A4 and W3A3.

    python benchmarks/cifar10_resnet20.py [--data DIR] [--seeds 0 1 2] [--bits w3a3 w4a4]

Every run is the command line's own job with the ``quick`` preset; the accuracy is that of the last
iteration on all lossless test images. Finished runs are kept in ``docs/results/`` and not
repeated, so the script may be stopped and started again at any time.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from collections.abc import Iterable
from itertools import product
from pathlib import Path
from typing import Any

from dreamquant import load_network, open_result, quantize
from dreamquant.results.files import read_json, write_bytes, write_json

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results" / "cifar10-resnet20.json"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
README_TOP1 = 91.68  # of the weights, on the same 9,874 images
MARKERS = "<!-- results: docs/results/cifar10-resnet20.md -->", "<!-- /results -->"
TITLE = "ResNet-20, CIFAR-10, no data: last iteration"
# Read in the papers' own tables or repositories; another checkpoint, 80,000 iterations, best epoch
# on the test set.
PUBLISHED = {
    ("gdfq", "w3a3"): "75.11",
    ("gdfq", "w4a4"): "90.11",
    ("adadfq", "w3a3"): "84.89",
    ("adadfq", "w4a4"): "92.31",
}


def main() -> None:
    """Run what is missing, then write the table."""
    options = _options()
    runs = read_json(RESULTS)["runs"] if RESULTS.exists() else []
    for seed, bits, method in product(options.seeds, options.bits, options.methods):
        if not any((r["seed"], r["bits"], r["method"]) == (seed, bits, method) for r in runs):
            runs.append(_run(options.data, method, bits, seed))
            _write(runs)
    _write(runs)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = Path(os.environ.get("DREAMQUANT_DATA", ROOT / "../shared/data"))
    parser.add_argument("--data", type=Path, default=default, help="folder of weights and images")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--bits", nargs="+", default=["w3a3", "w4a4"])
    parser.add_argument("--methods", nargs="+", default=["adadfq", "gdfq"])
    return parser.parse_args()


def _run(data: Path, method: str, bits: str, seed: int) -> dict[str, Any]:
    network = load_network(
        f"{Path(__file__).with_name('networks.py')}:cifar10_resnet20",
        weights=data / "weights" / "cifar10_resnet20.safetensors",
        shape=(3, 32, 32),
        mean=MEAN,
        std=STD,
    )
    images = data / "cifar10" / "test_lossless.npz"
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        cpu_before = _cpu_seconds()
        quantize(network, bits, method, seed=seed, data=images, device="auto", out=out)
        cpu = _cpu_seconds() - cpu_before
        manifest = open_result(out).manifest
    return {
        "method": method,
        "bits": bits,
        "seed": seed,
        "teacher_top1": manifest["accuracy"]["teacher"]["top1"],
        "ranges_only_top1": manifest["accuracy"]["ranges_only"]["top1"],
        "top1": manifest["accuracy"]["student"]["top1"],
        "ci95": manifest["accuracy"]["student"]["ci95"],
        "agreement": manifest["agreement"]["percent"],
        "n": manifest["accuracy"]["student"]["n"],
        "training_seconds": manifest["timings"]["training_seconds"],
        "seconds": manifest["timings"]["seconds"],
        "cpu_seconds": cpu,
        "schedule": manifest["method"]["schedule"],
        "protocol": manifest["protocol"],
        "versions": manifest["versions"],
        "hardware": manifest["hardware"],
    }


def _cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system


def _write(runs: list[dict[str, Any]]) -> None:
    runs = sorted(runs, key=lambda r: (r["bits"], r["method"], r["seed"]))
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    write_json(RESULTS, {"title": TITLE, "runs": runs})
    lines = list(_page(runs))
    write_bytes(RESULTS.with_suffix(".md"), "\n".join(lines).encode())
    _put_into_readme([line for line in lines if line.startswith("|")])


def _put_into_readme(table: list[str]) -> None:
    readme = ROOT / "README.md"
    before, start, rest = readme.read_text().partition(MARKERS[0])
    _, end, after = rest.partition(MARKERS[1])
    text = before + start + "\n".join(["", f"{TITLE}.", "", *table, ""]) + end + after
    write_bytes(readme, text.encode())


def _page(runs: list[dict[str, Any]]) -> Iterable[str]:
    first = runs[0]
    protocol, schedule = first["protocol"], first["schedule"]
    hardware = first["hardware"]
    yield f"# {TITLE}\n"
    yield f"Full precision: {first['teacher_top1']:.2f} % of {first['n']} lossless test images "
    yield f"(the weights' README says {README_TOP1}).\n"
    yield "| bits | method | top-1 %, mean ± sd | each seed | wall s | CPU s | published |"
    yield "|---|---|---|---|---|---|---|"
    for bits in sorted({r["bits"] for r in runs}):
        here = [r for r in runs if r["bits"] == bits]
        yield _row(bits, "min-max ranges only", [r["ranges_only_top1"] for r in here])
        for method in sorted({r["method"] for r in here}, reverse=True):
            its = [r for r in here if r["method"] == method]
            wall = statistics.mean(r["seconds"] for r in its)
            cpu = statistics.mean(r["cpu_seconds"] for r in its)
            published = PUBLISHED[method, bits]
            tops = [r["top1"] for r in its]
            yield _row(bits, method, tops, f"{wall:.0f}", f"{cpu:.0f}", published)
    yield ""
    yield f"Protocol: {protocol['placement']}; weights {protocol['weights']}; activations "
    yield f"{protocol['activations']}; all layers, first and last too, at the bits named; batch "
    yield f"norm {protocol['batch_norm']}; {schedule['iterations']} iterations of "
    yield f"{schedule['batch']} images (preset quick); the last iteration is reported; teacher "
    yield f"sha256 {protocol['teacher_sha256'][:12]}…"
    yield ""
    yield "The min-max row is the student of the same runs at the end of the generator's warm-up: "
    yield "ranges set on generated images, nothing learned. Seconds are means over seeds, from "
    yield "loading to the saved result, evaluations included, and were taken on a machine that "
    yield "did other work at times: compare CPU seconds."
    yield ""
    yield "Published figures are quoted for orientation, never measured here: from AdaDFQ's "
    yield "Table 2 (GDFQ's W3A3 as re-run there), another checkpoint (93.89 %), 80,000 iterations "
    yield "and the best epoch on the test set."
    yield ""
    yield (
        f"Hardware: {hardware['cpu']}, {hardware['threads']} threads. Versions: "
        + ", ".join(f"{name} {version}" for name, version in first["versions"].items())
        + "."
    )
    yield ""


def _row(
    bits: str,
    method: str,
    tops: list[float],
    wall: str = "–",
    cpu: str = "–",
    published: str = "–",
) -> str:
    spread = f" ± {statistics.stdev(tops):.2f}" if len(tops) > 1 else ""
    each = ", ".join(f"{top:.2f}" for top in tops)
    mean = statistics.mean(tops)
    return f"| {bits} | {method} | {mean:.2f}{spread} | {each} | {wall} | {cpu} | {published} |"


if __name__ == "__main__":
    main()
