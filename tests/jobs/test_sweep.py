"""Sweeps run each cell of a grid once, also after stops and failures."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from dreamquant.errors import DreamQuantError
from dreamquant.jobs import cell as cells
from dreamquant.jobs.cell import Outcome
from dreamquant.jobs.grid import read_grid
from dreamquant.jobs.sweep import SWEEP, Cluster, sweep
from dreamquant.report.field import as_markdown, read_field
from remedies import advises

NETWORKS = """
import os
import time
from pathlib import Path

import torch
from torch import nn

HERE = Path(__file__).parent

def small():
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
    pool = nn.AdaptiveAvgPool2d(1)
    return nn.Sequential(conv, norm, nn.ReLU(), pool, nn.Flatten(), nn.Linear(4, 3)).eval()

def slow_at_first():
    marker = HERE / "started"
    if not marker.exists():
        marker.write_text(str(os.getppid()))
        time.sleep(120)
    return small()

def broken():
    raise RuntimeError("no such thing")
"""
INPUT = 'input = "3x8x8"\nmean = "0,0,0"\nstd = "1,1,1"'


def network(name: str, factory: str) -> str:
    return f'[network.{name}]\nnetwork = "networks.py:{factory}"\n{INPUT}\n'


SMALL = network("small", "small")


def write(folder: Path, *sections: str) -> Path:
    (folder / "networks.py").write_text(NETWORKS)
    path = folder / "grid.toml"
    path.write_text("\n".join(sections))
    return path


def test_a_grid_spans_its_lists_less_its_exceptions(tmp_path: Path) -> None:
    grid = write(
        tmp_path,
        SMALL,
        '[grid]\nbits = ["w4a4", "w3a3"]\nseed = [0, 1]\nmethod = "squant"',
        '[[except]]\nbits = "w3a3"\nseed = [1, 2]',
    )
    found = read_grid(grid)
    spanned = [(each.options["bits"], each.options["seed"]) for each in found]
    assert spanned == [("w4a4", 0), ("w4a4", 1), ("w3a3", 0)]
    assert len({each.name for each in found}) == 3


def test_a_cell_is_known_by_what_is_asked_for(tmp_path: Path) -> None:
    first = read_grid(write(tmp_path, SMALL, '[grid]\nmethod = "squant"\nbits = "w4a4"'))
    defaults = read_grid(write(tmp_path, SMALL, '[grid]\nmethod = "squant"\nseed = 0'))
    assert [each.key for each in first] == [each.key for each in defaults]
    other = read_grid(write(tmp_path, SMALL, '[grid]\nmethod = "squant"\nseed = 1'))
    assert first[0].key != other[0].key


@pytest.mark.parametrize(
    ("sections", "what"),
    [
        (["[grid"], "it is not TOML"),
        ("[grid]\nbits = 'w4a4'".splitlines(), "it names no network"),
        ([SMALL, "[cells]"], "no section 'cells'"),
        (["[network.a]\nweights = 'x'"], "does not say which network"),
        ([SMALL + "bits = 'w4a4'"], "cannot have 'bits'"),
        ([SMALL, "[grid]\nbit = 'w4a4'"], "no option 'bit'"),
        ([SMALL, "[grid]\nbits = 'w9a9'"], "9"),
        ([SMALL, "[grid]\nmethod = 'none'"], "none"),
        ([SMALL, "[grid]\nseed = []"], "empty list"),
        ([SMALL, "[grid]\nresume = true"], "cannot have 'resume'"),
        ([SMALL, "[grid]\niterations = 3\nbudget = '1min'"], "iterations and a budget"),
        ([SMALL, "[[except]]\nnetwork = 'small'"], "no cell is left"),
        ([SMALL + "weights = 'none.pt'"], "weights file does not exist"),
    ],
)
def test_a_wrong_grid_is_refused_before_anything_runs(
    tmp_path: Path, sections: list[str], what: str
) -> None:
    with pytest.raises(DreamQuantError, match=what):
        sweep(write(tmp_path, *sections), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_finished_and_failed_cells_are_rows_and_never_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = write(
        tmp_path,
        SMALL,
        network("broken", "broken"),
        '[grid]\nmethod = "squant"\nbits = "w4a8"\ndevice = "cpu"',
    )
    out = tmp_path / "out"
    statuses = [outcome.status for outcome in sweep(grid, out)]
    assert statuses == ["finished", "failed"]
    rows = json.loads((out / SWEEP).read_text())["cells"]
    assert [row["status"] for row in rows] == statuses
    assert "no such thing" in rows[1]["error"]
    page = as_markdown(read_field([out]))
    assert "| squant |" in page
    assert "no such thing" in page
    ran: list[str] = []
    fails = Outcome("", "failed", 0.0, "again")
    monkeypatch.setattr(
        "dreamquant.jobs.sweep.run_cell", lambda cell, *_: ran.append(cell.network) or fails
    )
    assert [outcome.status for outcome in sweep(grid, out)] == statuses
    assert ran == []
    sweep(grid, out, retry=True)
    assert ran == ["broken"]


def after_its_start(folder: Path, then) -> threading.Thread:
    def wait() -> None:
        marker = folder / "started"
        while not marker.exists() or not marker.read_text():
            time.sleep(0.05)
        then(int(marker.read_text()))

    thread = threading.Thread(target=wait, daemon=True)  # where no cell starts, it never ends
    thread.start()
    return thread


def interrupt_main() -> None:
    ident = threading.main_thread().ident
    assert ident is not None
    signal.pthread_kill(ident, signal.SIGINT)  # which wakes it from reading, as a terminal does


def test_a_stopped_sweep_ends_its_cell_and_goes_on(tmp_path: Path) -> None:
    grid = write(
        tmp_path, network("slow", "slow_at_first"), '[grid]\nmethod = "squant"\ndevice = "cpu"'
    )
    out = tmp_path / "out"
    thread = after_its_start(tmp_path, lambda _: interrupt_main())
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        sweep(grid, out)
    thread.join(60)
    assert time.monotonic() - started < 60  # the cell would have slept for longer
    assert [row["status"] for row in json.loads((out / SWEEP).read_text())["cells"]] == ["open"]
    assert not (out / "failures").exists()
    assert [outcome.status for outcome in sweep(grid, out)] == ["finished"]


def test_a_cell_whose_process_is_killed_is_a_failure_in_words(tmp_path: Path) -> None:
    (cell,) = read_grid(write(tmp_path, SMALL, '[grid]\nmethod = "squant"'))
    assert cells._reason(-9, "line\n") == "ended by signal 9\nline"
    assert cells._reason(1, "") == "ended with exit code 1"
    assert cells.known(tmp_path, cell) is None


def nobody_answers(**_: object) -> None:
    raise ConnectionError("nobody answers")


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")
def test_a_lost_worker_of_ray_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = pytest.importorskip("ray")
    # By default Ray's workers yield to everything else, other tests included.
    monkeypatch.setenv("RAY_worker_niceness", "0")
    grid = write(
        tmp_path,
        network("slow", "slow_at_first"),
        SMALL,
        '[grid]\nmethod = "squant"\ndevice = "cpu"',
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "ray", None)
        with advises("jobs/sweep.py:_ray", "pip install 'dreamquant[sweep]'"):
            sweep(grid, tmp_path / "out", cluster=Cluster("local"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray, "init", nobody_answers)
        with advises("jobs/sweep.py:_on", "`ray start --head` printed, or local"):
            sweep(grid, tmp_path / "out", cluster=Cluster("10.0.0.1:6379"))
    thread = after_its_start(tmp_path, lambda worker: os.kill(worker, signal.SIGKILL))
    outcomes = sweep(grid, tmp_path / "out", cluster=Cluster("local", cpus=0.5))
    thread.join(60)
    assert [outcome.status for outcome in outcomes] == ["finished", "finished"]
