"""Two processes on one machine, started like by torchrun, train the same student."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import tiny
import tiny_runs
from dreamquant import open_result
from dreamquant.jobs import checkpoint
from dreamquant.training.phase import LOG_EVERY

WORKER = """
import atexit
import sys
from dataclasses import replace

import torch

# What is registered first runs last.
atexit.register(lambda: print(torch.distributed.is_initialized()))

from dreamquant.recovery.norms import reestimating
from dreamquant.training import tracing
from dreamquant.training.losses import Unread
from tiny_runs import short_method, tiny_run

# In float64, so that nothing but a wrong sum can make processes differ.
torch.set_default_dtype(torch.float64)
# Graphs are traced and parted, and run as they are: no compiler takes its time.
tracing._compiled = lambda graph, device: graph


def run(name):
    method, *choice = name.split()
    short = short_method(method, batch=8, learn=3)
    if choice == ["re-estimated"]:
        short = replace(short, recovery=reestimating(short.recovery, *choice))
    run = tiny_run(short, compile=choice == ["compiled"])
    drawn, noise, states, losses, unread = [], [], [], [], Unread()
    make = run.images.make
    run.images.make = lambda asked: drawn.append(asked.latent) or make(asked)
    for found in run.rest:
        unread.add(found)
        losses.append(unread.read(run.run.done))
        # All re-estimate batch norms on the same whole batches.
        if found:
            noise.append(drawn[-1])
        states.append({name: tensor.clone() for name, tensor in run.student.state_dict().items()})
    return {
        "processes": run.bench.accelerator.num_processes,
        "noise": torch.stack(noise),
        "states": states,
        "losses": losses,
        "generator": {name: p.detach() for name, p in run.generator.named_parameters()},
    }


torch.save({name: run(name) for name in sys.argv[2:]}, sys.argv[1])
"""


PIPES = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
METHODS = ("gdfq", "adadfq compiled", "adadfq re-estimated", "acq", "ris", "agm")
# Whose terms look at a batch as a whole in ways that the processes share.
ALIKE = ("gdfq", "adadfq compiled", "adadfq re-estimated")


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def start(folder, size):
    """Start so many processes that train together; each saves what it has, by method."""
    port, workers = free_port(), []
    paths = os.pathsep.join(str(Path(module.__file__).parent) for module in (tiny, tiny_runs))
    own = {"PYTHONPATH": os.pathsep.join([paths, os.environ.get("PYTHONPATH", "")])}
    for rank in range(size):
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": 1}
        environment = os.environ | own | {k: str(v) for k, v in (place | address).items()}
        command = [sys.executable, "-c", WORKER, str(folder / f"{rank}.pt"), *METHODS]
        workers.append(subprocess.Popen(command, env=environment, text=True, **PIPES))
    return folder, workers


def saved_by(folder, workers):
    """What each of the processes saved."""
    for worker in workers:
        in_group, err = worker.communicate(timeout=300)
        assert worker.returncode == 0, err
        # A thread of the group that outlives the interpreter aborts one process in seven.
        assert in_group == "False\n"
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(len(workers))]


@pytest.fixture(scope="module")
def all_trained(tmp_path_factory):
    """Of two that train together and one alone, at the same time."""
    started = [start(tmp_path_factory.mktemp(name), n) for name, n in (("both", 2), ("alone", 1))]
    return [saved_by(*each) for each in started]


@pytest.fixture(scope="module")
def both(all_trained):
    return all_trained[0]


@pytest.fixture(scope="module")
def alone(all_trained):
    return all_trained[1][0]


def different(first, second):
    return [name for name in first if not first[name].equal(second[name])]


@pytest.mark.parametrize("method", METHODS)
def test_each_makes_images_from_its_own_part_of_the_noise(method, both, alone):
    assert [rank[method]["processes"] for rank in both] == [2, 2]
    parts = [rank[method]["noise"] for rank in both]
    assert torch.cat(parts, dim=1).equal(alone[method]["noise"])
    assert not parts[0].equal(parts[1])


@pytest.mark.parametrize("method", METHODS)
def test_their_networks_are_equal_bit_by_bit_after_every_iteration(method, both):
    first, second = (rank[method] for rank in both)
    assert different(first["generator"], second["generator"]) == []
    for one, other in zip(first["states"], second["states"], strict=True):
        assert different(one, other) == []
    assert first["losses"] == second["losses"]


@pytest.mark.parametrize("method", ALIKE)
def test_two_processes_agree_with_one_that_has_the_whole_batch(method, both, alone):
    ours, whole = both[0][method], alone[method]
    for losses, wanted in zip(ours["losses"], whole["losses"], strict=True):
        assert losses == pytest.approx(wanted, rel=1e-7, abs=1e-9)
    for state, wanted in zip(ours["states"], whole["states"], strict=True):
        for name in state:
            torch.testing.assert_close(state[name], wanted[name], rtol=1e-7, atol=1e-9, msg=name)


# ------------------------------------------------------------- the command line, by srun


class Tasks:
    """Both processes of a `dreamquant quantize`, as srun starts them."""

    def __init__(self, folder, iterations, *more):
        arguments = (*tiny.options(folder, iterations), "--out", str(folder / "out"), *more)
        program = (
            "import sys; from dreamquant.cli.main import main; main(['quantize', *sys.argv[1:]])"
        )
        port = free_port()
        self.processes = [
            subprocess.Popen(
                [sys.executable, "-c", program, *arguments],
                env=os.environ | task(rank, port),
                text=True,
                **PIPES,
            )
            for rank in range(2)
        ]

    def ended(self):
        """What each printed and said, and its exit code."""
        return [(*one.communicate(timeout=300), one.returncode) for one in self.processes]


def task(rank, port):
    place = {
        "SLURM_STEP_NUM_TASKS": 2,
        "SLURM_PROCID": rank,
        "SLURM_LOCALID": rank,
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_JOB_ID": 1,
        "MASTER_PORT": port,
        "OMP_NUM_THREADS": 1,
    }
    return {name: str(value) for name, value in place.items()}


ITERATIONS = 60


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run that nobody stopped, and how both processes ended."""
    folder = tmp_path_factory.mktemp("whole")
    return folder / "out", Tasks(folder, ITERATIONS).ended()


def test_only_the_first_process_prints(whole):
    _, ((told, shown, first), (out, err, second)) = whole
    assert (first, second) == (0, 0), shown + err
    assert "student learns" in shown
    assert "agreement" in told
    assert (out, err) == ("", "")


def test_the_first_process_writes_one_whole_result(whole):
    folder, _ = whole
    result = open_result(folder)
    assert result.manifest["timings"]["iterations"] == ITERATIONS
    assert not [path for path in folder.iterdir() if path.suffix == ".tmp"]


def stopped(tasks, reached):
    """Tell these processes to stop, and see that both did."""
    assert tasks.processes[0].stderr.readline()
    for rank in reached:
        tasks.processes[rank].send_signal(signal.SIGTERM)
    (_, told, first), (_, silent, second) = tasks.ended()
    assert (first, second) == (130, 130), told + silent
    assert "the run is saved" in told
    assert silent == ""


def test_all_stop_after_the_same_iteration_whichever_is_told_to(whole, tmp_path):
    warm_up, learning = open_result(whole[0]).manifest["phases"]
    # All meet where losses are read: every so many iterations, and at the end of a phase.
    readings = {warm_up["iterations"], *range(LOG_EVERY, ITERATIONS, LOG_EVERY)}
    for reached, more in (((1,), ()), ((0, 1), ("--resume",))):
        stopped(Tasks(tmp_path, ITERATIONS, *more), reached)
        saved = checkpoint.read(tmp_path / "out" / "checkpoint")["run"]
        assert saved["done"] + saved["index"] * warm_up["iterations"] in readings
        assert saved["done"] < learning["iterations"]
    assert [code for _, _, code in Tasks(tmp_path, ITERATIONS, "--resume").ended()] == [0, 0]
    student = tmp_path / "out" / "student.safetensors"
    assert student.read_bytes() == (whole[0] / "student.safetensors").read_bytes()
