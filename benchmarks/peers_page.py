"""The page of ``peers.py``: one row a cell, networks apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from pages import listed

OWN = ("squant", "auto")  # methods of this project


def page(
    runs: Sequence[dict[str, Any]], missing: Sequence[tuple[str, str, str]] = ()
) -> Iterator[str]:
    """The page's lines.

    Args:
        runs: as on record, in the order they were run.
        missing: network, tool and images of cells that are not on record.
    """
    yield from ("# Peers: other tools on the same networks without data, W8A8", "")
    yield ("| network | tool | calibrated on | top-1, % | float32, % | KiB | s | CPU s | lines |")
    yield "|---|---|---|--:|--:|--:|--:|--:|--:|"
    for network in dict.fromkeys(run["network"] for run in runs):
        yield from (_row(run) for run in runs if run["network"] == network)
    yield ""
    yield (
        "All are ONNX files of 8-bit weights and activations, measured in ONNX Runtime on the same "
        "images. Calibrated on: 64 images; noise has pixels N(0.5, 0.25) clipped to [0, 1]; randn "
        "is "
        "N(0, 1) as input of the network; real are images that are not used for measuring, which "
        "users without data do not have; own: made by the method from the network. "
        "Seconds: from the float network to the quantized file, including reading it, without "
        "installation. Lines: lines of code that a user writes (`benchmarks/peer_tools`); for "
        "this project, one command."
    )
    yield ""
    yield (
        "Brevitas, MCT and AIMET take a module of PyTorch, which the user has to bring, instead of "
        "a file: here as torch.fx traces it. Brevitas quantizes inputs of layers "
        "(`layerwise_quantize`): its other way, `quantize`, fails on ResNet-20's slices. MCT's own "
        "export fails with this version of PyTorch; its network is written by `torch.onnx.export`, "
        "and its weights are float numbers on a grid there."
    )
    failed = [run for run in runs if run["top1"] is None]
    for run in failed:
        yield ""
        yield f"{run['tool']} on {run['network']} ({run['calibrated']}) failed: {run['failed']}"
    if missing:
        counts = Counter((tool, network) for network, tool, _ in missing)
        cells = (f"{tool} on {network} ({count})" for (tool, network), count in counts.items())
        yield from ("", f"Not run yet, with their number of cells: {', '.join(cells)}.")
    if runs:
        yield from ("", *_versions(runs))


def _row(run: dict[str, Any]) -> str:
    cells = (
        run["network"],
        f"DreamQuant, {run['tool']}" if run["tool"] in OWN else run["tool"],
        run["calibrated"],
        "–" if run["top1"] is None else f"{run['top1']:.2f}",
        f"{run['float_top1']:.2f}",
        *(f"{value / 1024:.0f}" if (value := run.get("bytes")) else "–",),
        *(f"{run[key]:.0f}" if key in run else "–" for key in ("seconds", "cpu_seconds")),
        str(run.get("lines", "–")),
    )
    return f"| {' | '.join(cells)} |"


def _versions(runs: Sequence[dict[str, Any]]) -> Iterator[str]:
    tools = {run["tool"]: listed(run["versions"]) for run in runs if run.get("versions")}
    yield "; ".join(f"{tool}: {versions}" for tool, versions in tools.items()) + "."
    machine = runs[-1]["machine"]
    yield ""
    yield (
        f"{machine['hardware']['cpu']}, {machine['hardware']['threads']} thread, shared with other "
        f"work: CPU seconds are the ones to compare. {listed(machine['versions'])}. Written by "
        "`benchmarks/peers.py`."
    )
