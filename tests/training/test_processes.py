"""Two processes on one machine, started as torchrun starts them, train one and the same student."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest
import torch

WORKER = """
import sys
from dataclasses import replace

import torch
from torch import nn

from dreamquant.methods import METHODS
from dreamquant.quantization.convert import quantize_network
from dreamquant.quantization.scheme import Bits, Scheme
from dreamquant.training.devices import accelerator_for
from dreamquant.training.loop import Training
from dreamquant.training.step import Teacher

torch.manual_seed(0)
network = nn.Sequential(
    nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(216, 5)
)
network.eval().requires_grad_(False)
recipe = METHODS["adadfq"].recipe("quick", (1, 8, 8))
schedule = replace(recipe.schedule, iterations=4, batch=4, range_warmup=2, student_warmup=2)
recipe = replace(recipe, schedule=schedule)
scheme = Scheme(Bits(3, 3), "relu-output", None, recipe.ranges, recipe.gradient)
example = torch.zeros(2, 1, 8, 8)
student, _ = quantize_network(network, scheme, example)
accelerator = accelerator_for("cpu", "32")
training = Training(
    recipe,
    Teacher(network, example, recipe.taps),
    student,
    image=(1, 8, 8),
    classes=5,
    seed=0,
    accelerator=accelerator,
)
noise = training.draw_batch(4).noise
states = []
for _ in range(4):
    training.step()
    states.append({name: tensor.clone() for name, tensor in student.state_dict().items()})
generator = dict(training.generator.named_parameters())
torch.save(
    {
        "processes": accelerator.num_processes,
        "noise": noise,
        "states": states,
        "generator": {name: tensor.detach() for name, tensor in generator.items()},
    },
    sys.argv[1],
)
accelerator.wait_for_everyone()
"""


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """What each of two processes has after four iterations."""
    folder, port = tmp_path_factory.mktemp("processes"), free_port()
    workers = []
    for rank in range(2):
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": 1}
        environment = os.environ | {k: str(v) for k, v in (place | address).items()}
        command = [sys.executable, "-c", WORKER, str(folder / f"{rank}.pt")]
        workers.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE))
    for worker in workers:
        _, err = worker.communicate(timeout=100)
        assert worker.returncode == 0, err.decode()
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def different(first, second):
    return [name for name in first if not first[name].equal(second[name])]


def test_both_take_part_and_draw_their_own_noise(both):
    assert [rank["processes"] for rank in both] == [2, 2]
    assert not both[0]["noise"].equal(both[1]["noise"])


def test_their_generators_learn_the_same(both):
    assert different(*(rank["generator"] for rank in both)) == []


@pytest.mark.parametrize("iteration", range(4))
def test_their_students_are_equal_bit_by_bit_after_every_iteration(both, iteration):
    assert different(*(rank["states"][iteration] for rank in both)) == []
