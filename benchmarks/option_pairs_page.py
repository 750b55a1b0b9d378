"""Every two options of ``dreamquant quantize``: ``python benchmarks/option_pairs_page.py``.

Rows in which every two values meet that may are run on a network of a second, and what is known to
be refused is tried by itself; see ``tests/support/option_pairs.py``.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "support"))

import option_pairs as pairs  # noqa: E402
from dreamquant.results.describe import describe_machine  # noqa: E402
from dreamquant.results.files import write_json  # noqa: E402
from pages import RESULTS, listed, write_page  # noqa: E402

PATH = RESULTS / "option-pairs.json"
_TRAINED = [("--method", name) for name in ("adadfq", "adadfq+ris")]  # generator and student


COMPILED = 2  # rows; the compiler takes minutes for each


def rows() -> Iterator[tuple[str, pairs.Row]]:
    """Covering rows, some again with the compiler at work, then each refusal alone."""
    covering = pairs.covering()
    for row in covering:
        yield "pairs", row
    for row in [row for row in covering if _compiles(row)][:COMPILED]:
        yield "compiled", {**row, "--iterations": ("--iterations", "2")}
    weights = pairs.factors()["--weights"][0]
    for known in pairs.REFUSED:
        words = {each: tuple(each.split()) for each in known}
        yield "refusal", {"--weights": weights, "--iterations": ("--iterations", "2"), **words}


def _compiles(row: pairs.Row) -> bool:
    """Whether a network is trained in this row, and compiled for that."""
    return row["--compile"] == ("--compile",) and row["--method"] in _TRAINED


def measured(folder: Path) -> Iterator[dict[str, Any]]:
    """The outcome of each row."""
    pairs.prepare(folder)
    for number, (kind, row) in enumerate(rows()):
        out = folder / f"out{number}"
        found = pairs.tried(row, folder, out, compiler=kind == "compiled")
        words = " ".join(found.words).replace(str(folder), "DIR")
        said = "" if found.outcome == "ok" else found.text.replace(str(folder), "DIR")
        print(number, kind, found.outcome, flush=True)
        yield {"kind": kind, "options": words, "outcome": found.outcome, "said": said}


def page(record: dict[str, Any]) -> Iterator[str]:
    """The page's lines."""
    counts = {
        kind: Counter(row["outcome"] for row in record["rows"] if row["kind"] == kind)
        for kind in ("pairs", "compiled", "refusal")
    }
    together = sum(1 for _ in pairs.missing_at_first())
    yield from ("# Options of `dreamquant quantize`, in all pairs", "")
    yield (
        f"{len(pairs.factors())} factors, {together} pairs of values, in "
        f"{counts['pairs'].total()} runs: {_told(counts['pairs'])}. In these, `--compile` is "
        "given and the compiler is replaced by one that changes nothing; "
        f"{counts['compiled'].total()} of them again with PyTorch's compiler: "
        f"{_told(counts['compiled'])}. Of "
        f"{counts['refusal'].total()} combinations that are known to be refused: "
        f"{_told(counts['refusal'])}. Refused means: before the first step, with a message that "
        "names a given option."
    )
    for kind in ("pairs", "compiled", "refusal"):
        yield from ("", f"| {kind} | outcome | message |", "|---|---|---|")
        for row in record["rows"]:
            if row["kind"] == kind and (kind != "pairs" or row["outcome"] != "ok"):
                yield f"| `{row['options']}` | {row['outcome']} | {_line(row['said'])} |"
    yield ""
    yield f"{record['hardware']['cpu']}, {listed(record['versions'])}. Written by"
    yield "`benchmarks/option_pairs_page.py`."


def _told(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {outcome}" for outcome, count in counts.items())


def _line(said: str) -> str:
    return " ".join(said.split()).replace("|", "\\|")


def main() -> None:
    """Run all rows, and write record and page."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        found = list(measured(Path(folder)))
    record = {"rows": found, **describe_machine(torch.device("cpu"))}
    write_json(PATH, record)
    write_page(PATH, page(record))


if __name__ == "__main__":
    main()
