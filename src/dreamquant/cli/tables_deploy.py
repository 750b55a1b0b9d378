"""Prints tables about exported files on standard output."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dreamquant.cli.tables import print_pairs, print_path, print_table, print_text
from dreamquant.export.benchmark import Benchmark
from dreamquant.export.job import ExportedFile
from dreamquant.export.prediction import Prediction

if TYPE_CHECKING:
    from dreamquant.export.verify import Verification

_SHOWN = 3  # number of reasons why layers stay in float


def exported_table(files: Sequence[ExportedFile]) -> None:
    """Print the files, their verification, and the parts that run in float."""
    for file in files:
        print_path(file.path)
        print_pairs(_described(file))
        print_text()


def _described(file: ExportedFile) -> dict[str, str]:
    pairs = {"  size": f"{file.bytes / 1024:.1f} KiB"}
    found = file.verification
    if found is None:
        return pairs | {"  verified": "the program's logits equal the student's"}
    agreed = ", ".join(
        f"{100 * share:.1f} % in {name}"
        for name, share in found.agreement.items()
        if share is not None
    )
    pairs["  verified"] = (
        f"{found.layers} quantizers on {found.images} images: at most {found.flipped:.3%} of codes "
        f"differ, by one; loaded in {', '.join(found.agreement)}"
        + (f"; top-1 agrees on {agreed} of {found.confident} confident inputs" if agreed else "")
    )
    pairs["  exact on"] = f"x86 processors with {', '.join(found.exact_on)}" + _saturating(found)
    if found.warnings:
        pairs["  warning"] = "; ".join(found.warnings)
    if found.integer_convolutions is not None:
        pairs["  convolutions"] = (
            f"{found.integer_convolutions} on integers, {found.float_convolutions} in float"
        )
        pairs["  products"] = (
            f"{found.integer_products} on integers, {found.float_products} in float"
        )
    if file.in_float:
        rest = len(file.in_float) - _SHOWN
        more = f"; and {rest} more, see the manifest" if rest > 0 else ""
        pairs["  in float"] = "; ".join(file.in_float[:_SHOWN]) + more
    return pairs


def _saturating(found: Verification) -> str:
    if not found.saturating:
        return ""
    most = max(found.saturating.values())
    return (
        f"; without VNNI {len(found.saturating)} layers saturate, at worst {most:.1%} of a layer's "
        "sums on these images"
    )


def predictions_list(predictions: Sequence[Prediction]) -> None:
    """Print the prediction for each image."""
    for found in predictions:
        print_path(found.path)
        for text in _told(found):
            print_text(f"  {text}")


def _told(found: Prediction) -> list[str]:
    if found.outputs:
        return [
            f"{name}: {' x '.join(map(str, each['shape']))} from {each['lowest']:.4g} to "
            f"{each['highest']:.4g}, mean {each['mean']:.4g}"
            for name, each in found.outputs
        ]
    classes = [f"{name} {100 * share:.1f} %" for name, share in found.classes]
    if not found.boxes:
        return [", ".join(classes)]
    corners = [", ".join(f"{value:.3f}" for value in box) for box in found.boxes]
    return [f"{text} at {box}" for text, box in zip(classes, corners, strict=True)]


def benchmark_table(timed: Benchmark, path: Path) -> None:
    """Print latencies of the file and of the same network in float32."""
    print_path(path)
    print_text(
        f"{timed.runtime}, {timed.threads} threads, batch {timed.batch}, {timed.runs} runs of "
        "each, alternating\n",
        "bold",
    )
    rows = [
        [name, f"{t.p50:.2f} ms", f"{t.p90:.2f} ms", f"{t.images_per_second:.1f}"]
        for name, t in (("this file", timed.quantized), ("float32", timed.float32))
    ]
    print_table(["", "p50", "p90", "images per second"], rows)
    print_text(f"\n{timed.speedup:.2f} times as fast as float32")
