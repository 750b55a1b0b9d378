"""Two processes on one machine, started as torchrun starts them, train one and the same student."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest
import torch

import tiny
from dreamquant import open_result

WORKER = """
import sys
from dataclasses import replace

import torch
from torch import nn

from dreamquant.methods import METHODS
from dreamquant.quantization.convert import quantize_network
from dreamquant.quantization.scheme import Bits, Scheme
from dreamquant.training import compiled
from dreamquant.training.devices import accelerator_for
from dreamquant.training.loop import Training, Unread
from dreamquant.training.step import Teacher

BATCH, STEPS = 8, 5
# In float64, so that nothing but a wrong sum can make processes differ.
torch.set_default_dtype(torch.float64)
torch.Tensor.float = lambda tensor: tensor
# Graphs are traced and parted, and run as they are: no compiler takes its time.
compiled._compiled = lambda graph, device: graph


def run(name):
    method, *choice = name.split()
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(216, 5)
    )
    network.eval().requires_grad_(False)
    recipe = METHODS[method].recipe("quick", (1, 8, 8))
    schedule = replace(
        recipe.schedule, iterations=STEPS, batch=BATCH, range_warmup=2, student_warmup=2
    )
    recipe = replace(recipe, schedule=schedule)
    scheme = Scheme(Bits(3, 3), "relu-output", None, recipe.ranges, recipe.gradient)
    example = torch.zeros(2, 1, 8, 8)
    student, _ = quantize_network(network, scheme, example)
    training = Training(
        recipe,
        Teacher(network, example, recipe.taps),
        student,
        image=(1, 8, 8),
        classes=5,
        seed=0,
        accelerator=accelerator_for("cpu", "32"),
        compiled=choice == ["compiled"],
    )
    noise, states, losses, unread = [], [], [], Unread()
    invent = training.invent
    training.invent = lambda asked: noise.append(asked.noise) or invent(asked)
    for _ in range(STEPS):
        unread.add(training.step())
        losses.append(unread.read(training.iteration))
        states.append({name: tensor.clone() for name, tensor in student.state_dict().items()})
    generator = {name: p.detach() for name, p in training.generator.named_parameters()}
    return {
        "processes": training.accelerator.num_processes,
        "noise": torch.stack(noise),
        "states": states,
        "losses": losses,
        "generator": generator,
    }


torch.save({name: run(name) for name in sys.argv[2:]}, sys.argv[1])
"""


METHODS = ("gdfq", "adasg", "adadfq", "adadfq compiled", "acq", "ris", "agm")
# Whose terms look at a batch as a whole in ways that the processes share.
ALIKE = ("gdfq", "adasg", "adadfq", "adadfq compiled")


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def started(folder, size):
    """What each of so many processes has after five iterations, by method."""
    port, workers = free_port(), []
    for rank in range(size):
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": 1}
        environment = os.environ | {k: str(v) for k, v in (place | address).items()}
        command = [sys.executable, "-c", WORKER, str(folder / f"{rank}.pt"), *METHODS]
        workers.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE))
    for worker in workers:
        _, err = worker.communicate(timeout=100)
        assert worker.returncode == 0, err.decode()
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(size)]


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    return started(tmp_path_factory.mktemp("both"), 2)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return started(tmp_path_factory.mktemp("alone"), 1)[0]


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


@pytest.fixture(scope="module")
def commands(tmp_path_factory):
    """Both processes of a `dreamquant quantize`, ended, and the folder they were given."""
    folder, port = tmp_path_factory.mktemp("commands"), free_port()
    options = [*tiny.options(folder, 4), "--out", str(folder / "out")]
    program = "import sys; from dreamquant.cli import main; main(['quantize', *sys.argv[1:]])"
    started = []
    for rank in range(2):
        task = {
            "SLURM_STEP_NUM_TASKS": 2,
            "SLURM_PROCID": rank,
            "SLURM_LOCALID": rank,
            "SLURM_STEP_NODELIST": "localhost",
            "SLURM_JOB_ID": 1,
            "MASTER_PORT": port,
            "OMP_NUM_THREADS": 1,
        }
        started.append(
            subprocess.Popen(
                [sys.executable, "-c", program, *options],
                env=os.environ | {name: str(value) for name, value in task.items()},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    return folder / "out", [(*task.communicate(timeout=100), task.returncode) for task in started]


def test_only_the_first_process_prints(commands):
    _, ((told, shown, first), (out, err, second)) = commands
    assert (first, second) == (0, 0), shown + err
    assert "student learns" in shown
    assert "agreement" in told
    assert (out, err) == ("", "")


def test_the_first_process_writes_one_whole_result(commands):
    folder, _ = commands
    result = open_result(folder)
    assert result.manifest["timings"]["iterations"] == 4
    assert not [path for path in folder.iterdir() if path.suffix == ".tmp"]
