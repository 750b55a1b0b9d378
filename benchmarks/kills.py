"""Runs of the command line, killed without warning in every phase, and resumed until they are done.

A kill is SIGKILL, which a process cannot handle.
"""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

import tiny
from dreamquant import open_result
from dreamquant.jobs import checkpoint
from dreamquant.results.files import read_json, read_tensors
from dreamquant.results.folder import ANALYSIS, CHECKPOINT, REPORT, SAMPLES, STUDENT
from dreamquant.results.lock import LOCK
from dreamquant.results.manifest import MANIFEST

PROGRAM = (sys.executable, "-c", "from dreamquant.cli.main import main; main()", "quantize")
IMPORT = "starting"
# As the command line announces them, after the imports.
PHASES = (IMPORT, "generator warms up", "student learns", "measuring", "saving")
_PATIENCE = 300.0


@dataclass
class Attempt:
    """One process.

    Attributes:
        code: it ended with; negative where it was killed.
        phases: when each began, in seconds from its start.
        seconds: it took.
        errors: all that it wrote to standard error.
    """

    code: int
    phases: dict[str, float]
    seconds: float
    errors: str

    @property
    def phase(self) -> str:
        """The last phase that it announced."""
        return list(self.phases)[-1]

    def lasting(self) -> dict[str, float]:
        """Seconds of each phase."""
        ends = [*list(self.phases.values())[1:], self.seconds]
        return {
            phase: end - begin
            for (phase, begin), end in zip(self.phases.items(), ends, strict=True)
        }


@dataclass
class Tally:
    """The number of kills by phase, and of runs.

    Attributes:
        kills: by the phase they struck.
        runs: finished ones, each with the bytes of the run that nobody killed.
        whole_files: found after kills, and read as whole ones.
    """

    kills: dict[str, int] = field(default_factory=lambda: dict.fromkeys(PHASES, 0))
    runs: int = 0
    whole_files: int = 0


def survive(kills: int, folder: Path, *, iterations: int, seed: int) -> Tally:
    """Kill so many runs, resume each until it is done, and compare.

    Args:
        kills: in all; they go round the phases.
        folder: for the results.
        iterations: of a run.
        seed: of the moments.

    Raises:
        AssertionError: a resumed run failed, a file was not whole, or a student differs.
    """
    options = tiny.options(folder, iterations)
    whole = folder / "whole"
    reference = start((*options, "--out", str(whole)))
    assert reference.code == 0, reference.errors
    lasting = reference.lasting()
    chance, tally, run = random.Random(seed), Tally(), 0
    while sum(tally.kills.values()) < kills:
        run += 1
        out = folder / f"run{run}"
        for phase in PHASES:
            if sum(tally.kills.values()) == kills:
                break
            moment = (phase, chance.uniform(0, lasting[phase]))
            attempt = start((*options, "--out", str(out), "--resume"), moment)
            assert attempt.code in (0, -9), attempt.errors
            if attempt.code == 0:  # it was faster than the kill
                break
            tally.kills[attempt.phase] += 1
            tally.whole_files += require_whole(out, whole)
        last = start((*options, "--out", str(out), "--resume"))
        assert last.code == 0, last.errors
        require_equal(out, whole)
        tally.runs += 1
        # The machine may do other work at times: a kill must not come after the end.
        for phase, seconds in last.lasting().items():
            lasting[phase] = min(lasting[phase], seconds)
    return tally


def start(arguments: Sequence[str], moment: tuple[str, float] | None = None) -> Attempt:
    """Run a job, and kill it so many seconds into a phase."""
    began = time.monotonic()
    process = subprocess.Popen(
        [*PROGRAM, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    lines: list[str] = []
    phases = {IMPORT: 0.0}
    reader = threading.Thread(target=_read, args=(process, lines, phases, began))
    reader.start()
    if moment is not None:
        _kill_at(process, phases, began, *moment)
    code = process.wait(_PATIENCE)
    reader.join()
    return Attempt(code, phases, time.monotonic() - began, "".join(lines))


def _read(
    process: subprocess.Popen[str], lines: list[str], phases: dict[str, float], began: float
) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        lines.append(line)
        for phase in PHASES:
            if line.startswith(phase):
                phases.setdefault(phase, time.monotonic() - began)


def _kill_at(
    process: subprocess.Popen[str],
    phases: dict[str, float],
    began: float,
    phase: str,
    delay: float,
) -> None:
    # A resumed run may begin behind the phase: any later one will do.
    later = PHASES[PHASES.index(phase) :]
    while process.poll() is None:
        reached = [phases[name] for name in later if name in phases]
        if reached and time.monotonic() - began >= min(reached) + delay:
            process.kill()
        time.sleep(0.001)


def require_whole(out: Path, reference: Path) -> int:
    """Read every finished file, and return their number; each must be complete.

    Raises:
        AssertionError: one differs from that of a run that nobody killed.
        DreamQuantError: one cannot be read.
    """
    found = list(_whole(out, reference))
    return len(found)


def _whole(out: Path, reference: Path) -> Iterator[str]:
    readers: dict[str, Callable[[Path], object]] = {
        f"{CHECKPOINT}/{checkpoint.STATE}": lambda path: checkpoint.read(path.parent),
        STUDENT: read_tensors,
        ANALYSIS: read_json,
        SAMPLES: lambda path: Image.open(path).load(),
        MANIFEST: lambda path: open_result(path.parent, network=tiny.network()),
        REPORT: lambda path: _require(path.read_text().rstrip().endswith("</html>"), str(path)),
    }
    for name, read in readers.items():
        if (out / name).exists():
            read(out / name)
            yield name
    if (out / STUDENT).exists():
        _require_same(out / STUDENT, reference / STUDENT)


def require_equal(out: Path, reference: Path) -> None:
    """Compare a result folder with that of an unstopped run; only times may differ.

    Raises:
        AssertionError: it differs, or something is left that no result has.
    """
    for name in (STUDENT, SAMPLES):
        _require_same(out / name, reference / name)
    names = [{path.name for path in folder.iterdir()} for folder in (out, reference)]
    _require(names[0] == names[1], f"{names[0]} instead of {names[1]}")
    _require(LOCK not in names[0], "the lock is left")


def _require_same(file: Path, reference: Path) -> None:
    _require(file.read_bytes() == reference.read_bytes(), f"{file} differs from {reference}")


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise AssertionError(what)
