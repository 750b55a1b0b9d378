"""The page of ``kit.py``: one row a network and its bits, and below it what fell short."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from dreamquant.networks.choices import current_task
from pages import listed

_SCORES = {"classification": "top-1", "segmentation": "mIoU", "regression": "mAP50"}


def page(runs: Sequence[dict[str, Any]], missing: Sequence[tuple[str, str]]) -> Iterator[str]:
    """The page's lines.

    Args:
        runs: as on record, in the order they were run.
        missing: networks and bits that were not run yet.
    """
    yield from ("# Networks: quantized, recovered, exported", "")
    yield (
        "| network | bits | score | float32 | rounded | recovered | in the file | float products "
        "| float weights | int8box | int4 | s | CPU s |"
    )
    yield "|---|---|---|--:|--:|--:|--:|--:|--:|---|---|--:|--:|"
    yield from map(_row, runs)
    yield ""
    yield (
        "All in percent. Rounded: weights to the nearest code, ranges on 64 procedural "
        "images, 16 of 224 pixels and more. "
        f"Recovered: the default method `auto` within the budget on record{_others(runs)}. "
        "Scheme integer everywhere. In the file: score of the int8box file in ONNX Runtime. "
        "Float products: multiplications of convolutions, linear layers and matrix products with "
        "an operand in float. Files: the runtimes with the student's results (ort, ov: ONNX "
        "Runtime, OpenVINO). Seconds: from the start to the recovered and measured result."
    )
    if missing:
        yield ""
        yield f"Not run yet: {', '.join(f'{name} {bits.upper()}' for name, bits in missing)}."
    yield from _remarks(runs)
    if runs:
        hardware = runs[-1]["hardware"]
        yield ""
        yield (
            f"{hardware['cpu']}, {hardware['threads']} thread, shared with other work: CPU seconds "
            f"are the ones to compare. {listed(runs[-1]['versions'])}. "
            "Written by `benchmarks/kit.py`."
        )


def _others(runs: Sequence[dict[str, Any]]) -> str:
    others = [f"{run['network']} {run['bits'].upper()}" for run in runs if run["method"] != "auto"]
    return f"; by SQuant: {', '.join(others)}" if others else ""


def _row(run: dict[str, Any]) -> str:
    coverage, files = run["coverage"], {file["target"]: file for file in run["files"]}
    box = files["int8box"].get("score") or {}
    score = _SCORES[current_task(run["task"])]
    return (
        f"| {run['network']} | {run['bits'].upper()} | {score} of {run['images']} "
        f"| {_score(run['float32'])} | {_score(run['rounded'])} | {_score(run['recovered'])} "
        f"| {', '.join(f'{value:.1f}' for value in box.values()) or '–'} "
        f"| {coverage['float_multiplications']:.1f} | {coverage['float_weights']:.1f} "
        f"| {_file(files['int8box'])} | {_file(files['int4'])} "
        f"| {run['seconds']:.0f} | {run['cpu_seconds']:.0f} |"
    )


def _score(evaluation: dict[str, Any] | None) -> str:
    if evaluation is None:
        return "–"
    scores = evaluation.get("scores") or {"top-1": evaluation["top1"]}
    return f"{next(iter(scores.values())):.1f}"


_SHORT = {"onnxruntime": "ort", "openvino": "ov"}


def _file(file: dict[str, Any]) -> str:
    if "refused" in file:
        return "refused, below"
    return f"{' '.join(_SHORT[name] for name in file['runtimes'])}, {file['bytes'] / 1024:.0f} KiB"


def _remarks(runs: Sequence[dict[str, Any]]) -> Iterator[str]:
    for run in runs:
        found = list(_of(run))
        if found:
            yield from ("", f"{run['network']}, {run['bits'].upper()}:", "")
            yield from (f"- {remark}" for remark in found)


def _of(run: dict[str, Any]) -> Iterator[str]:
    coverage = run["coverage"]
    named = [*coverage["left_in_float"], *coverage["float_functions"]]
    if named:
        yield f"in float: {'; '.join(_counted(named))}"
    for file in run["files"]:
        if "refused" in file:
            yield f"{file['target']} refused: {' '.join(file['refused'].split())}"
        for warning in file.get("warnings", ()):
            yield f"{file['target']}: {warning}"


def _counted(names: Sequence[str]) -> list[str]:
    counts = {name: names.count(name) for name in names}
    return [f"{name} ({count})" if count > 1 else name for name, count in counts.items()]
