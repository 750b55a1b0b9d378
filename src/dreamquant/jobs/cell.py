"""One cell of a sweep in a process of its own, so that its failure does not affect others."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dreamquant.errors import DreamQuantError
from dreamquant.jobs.grid import Cell
from dreamquant.results.files import make_folder, write_json
from dreamquant.results.manifest import MANIFEST

# Not in the result's folder, which may hold only a finished run or one that can be resumed.
_FAILURES = "failures"
_REFUSED, _STOPPED = 2, 130
_LAST_LINES = 12
Status = Literal["finished", "failed"]


@dataclass(frozen=True)
class Outcome:
    """The end of a cell.

    Attributes:
        cell: its name.
        status: ``finished`` or ``failed``.
        seconds: time that it took now; 0 if it was finished before.
        error: of a failed cell.
    """

    cell: str
    status: Status
    seconds: float
    error: str = ""


def known(out: Path, cell: Cell) -> Outcome | None:
    """The end of a cell in an earlier run of the sweep, or ``None``."""
    if (out / cell.name / MANIFEST).is_file():
        return Outcome(cell.name, "finished", 0.0)
    failure = _failure(out, cell)
    if failure.is_file():
        return Outcome(**json.loads(failure.read_text(encoding="utf-8")))
    return None


def run_cell(cell: Cell, out: Path, folder: Path) -> Outcome:
    """Run a cell in another process, and continue an earlier run of it.

    Args:
        cell: the cell to run.
        out: folder of the sweep.
        folder: the cell's paths are relative to it.

    Returns:
        Its end; a failure is recorded in ``out`` too.

    Raises:
        KeyboardInterrupt: Ctrl-C; the cell has saved its state.
    """
    started = time.monotonic()
    order = {"opened": cell.opened, "options": cell.options, "out": str(out / cell.name)}
    # Whoever kills the sweep closes this pipe, and the cell saves its run and ends. Its own session
    # keeps the terminal's Ctrl-C from reaching it a second time.
    process = subprocess.Popen(
        [sys.executable, "-m", "dreamquant.jobs.cell"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        cwd=folder,
        text=True,
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stderr is not None
    try:
        process.stdin.write(json.dumps(order) + "\n")
        process.stdin.flush()
        said = process.stderr.read()
    finally:
        process.stdin.close()
        code = process.wait()
        process.stderr.close()
    if code == _STOPPED:
        raise KeyboardInterrupt
    seconds = round(time.monotonic() - started, 1)
    if code == 0:
        _failure(out, cell).unlink(missing_ok=True)
        return Outcome(cell.name, "finished", seconds)
    failed = Outcome(cell.name, "failed", seconds, _reason(code, said))
    make_folder(out / _FAILURES)
    write_json(_failure(out, cell), vars(failed))
    return failed


def _failure(out: Path, cell: Cell) -> Path:
    return out / _FAILURES / f"{cell.name}.json"


def _reason(code: int, said: str) -> str:
    lines = said.strip().splitlines()
    if code == _REFUSED:
        return "\n".join(lines).removeprefix("error: ")
    ended = f"ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
    return "\n".join([ended, *lines[-_LAST_LINES:]])


def _run(order: Mapping[str, Any]) -> None:
    from dreamquant.jobs.quantize import quantize
    from dreamquant.networks.load import load_network

    opened = dict(order["opened"])
    weights = opened.get("weights")
    network = load_network(
        opened["network"],
        weights=None if weights is None else Path(weights),
        shape=_numbers(opened.get("input"), "x", int),
        mean=_numbers(opened.get("mean"), ",", float),
        std=_numbers(opened.get("std"), ",", float),
        num_classes=opened.get("classes"),
    )
    out = Path(order["out"])
    quantize(network, out=out, resume=True, quiet=True, **order["options"])


def _numbers(text: str | None, between: str, kind: type) -> tuple[Any, ...] | None:
    return None if text is None else tuple(kind(part) for part in text.split(between))


def _stop_with_the_sweep() -> None:
    os.read(sys.stdin.fileno(), 1)  # nothing is ever sent: it returns when the pipe is closed
    os.kill(os.getpid(), signal.SIGINT)


def main() -> None:
    """Run the cell that standard input describes in its first line."""
    order = json.loads(sys.stdin.readline())
    threading.Thread(target=_stop_with_the_sweep, daemon=True).start()
    try:
        _run(order)
    except DreamQuantError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(_REFUSED)
    except KeyboardInterrupt:
        sys.exit(_STOPPED)


if __name__ == "__main__":
    main()
