"""Tables of the README, written from records."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from dreamquant.results.files import write_bytes
from grid import ROOT
from pages import RESULTS, runs_on

_PEERS, _MINUTES = RESULTS / "peers.json", RESULTS / "minutes.json"
_NETWORKS = ("MobileNetV1 0.75", "EfficientNet-Lite0", "ResNet-20 CIFAR-10")


def put_into_readme(record: str, lines: Iterable[str]) -> None:
    """Replace what stands between a record's marks in the README.

    Args:
        record: name of the record, without its ending.
        lines: of the new text.
    """
    readme = ROOT / "README.md"
    mark = f"<!-- results: docs/results/{record}.md -->"
    before, start, rest = readme.read_text().partition(mark)
    _, end, after = rest.partition("<!-- /results -->")
    text = before + start + "\n".join(["", *lines, ""]) + end + after
    write_bytes(readme, text.encode())


def write_first_table() -> None:
    """Three real networks by the default method, beside other tools without data."""
    put_into_readme("peers", _first_table())


def _first_table() -> Iterator[str]:
    others = "ONNX Runtime, W8A8 | NNCF, W8A8"
    yield f"| top-1, % | float32 | W8A8 | seconds | W4A4 | seconds | {others} |"
    yield "|---|--:|--:|--:|--:|--:|--:|--:|"
    for network in _NETWORKS:
        low = _found(_MINUTES, network=network, bits="w4a4", method="auto")
        eight = _found(_PEERS, network=network, tool="auto")
        peers = [
            _found(_PEERS, network=network, tool=tool, calibrated="noise")
            for tool in ("ONNX Runtime", "NNCF")
        ]
        cells = (
            f"{eight['float_top1']:.1f}",
            f"**{eight['top1']:.1f}**",
            f"{eight['cpu_seconds']:.0f}",
            f"**{low['accuracy']['student']['top1']:.1f}**",
            f"{low['cpu_seconds']:.0f}",
            *(f"{peer['top1']:.1f}" for peer in peers),
        )
        yield f"| {network} | {' | '.join(cells)} |"


def _found(record: Any, **wanted: str) -> dict[str, Any]:
    """The run of these values.

    Raises:
        LookupError: no run on record has them.
    """
    for run in runs_on(record):
        if wanted.items() <= run.items():
            return run
    raise LookupError(f"{record.name} has no run of {wanted}")


if __name__ == "__main__":
    write_first_table()
