"""Benchmarks keep every run, also of several processes."""

from __future__ import annotations

import json
from contextlib import suppress
from threading import Barrier, BrokenBarrierError, Thread

import pytest
import torch

import deploy
import full_schedule
import grid
import memory
import step
import timed
from dreamquant.methods import METHODS
from dreamquant.quantization.scheme import Bits, Scheme
from dreamquant.results.reopen import open_result
from plain import PlainLoop
from tiny_runs import tiny_network, tiny_teacher


def recorded(method, seed):
    protocol = {"training_precision": "32"}
    return {"method": method, "bits": "w3a3", "seed": seed, "protocol": protocol}


def test_a_student_that_learned_nothing_is_a_result(tmp_path):
    scheme = Scheme(Bits(8, 8), "layer-input", joins=8)
    deploy.ranged(tiny_teacher(tiny_network()), scheme).save(tmp_path / "out")
    manifest = open_result(tmp_path / "out", network=tiny_network()).manifest
    assert manifest["protocol"]["weights"].startswith("affine, per output channel, min-max")
    assert manifest["method"]["name"] == "none"


def test_two_processes_share_a_grid(tmp_path, monkeypatch):
    monkeypatch.setattr(grid, "RESULTS", tmp_path)
    first, second = grid.Grid("g", "title"), grid.Grid("g", "title")
    first.add(recorded("gdfq", 0))
    second.add(recorded("adadfq", 0))
    first.add(recorded("gdfq", 1))
    assert len(first.runs) == len(second.runs) == 3
    assert second.has(grid.Point("gdfq", "w3a3", 1))
    assert not second.has(grid.Point("gdfq", "w3a3", 2))
    for other in ({"precision": "bf16"}, {"preset": "paper"}, {"compiled": True}):
        assert not second.has(grid.Point("gdfq", "w3a3", 1, **other))


def test_runs_added_at_once_are_all_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(grid, "RESULTS", tmp_path)
    grid.Grid("g", "title").add(recorded("gdfq", 0))
    read, both_have_read = grid.read_json, Barrier(2)

    def slowly(path):
        found = read(path)
        # Where both may read before either writes, they meet here; where not, the wait ends.
        with suppress(BrokenBarrierError):
            both_have_read.wait(timeout=1)
        return found

    monkeypatch.setattr(grid, "read_json", slowly)
    adding = [
        Thread(target=grid.Grid("g", "title").add, args=[recorded("gdfq", seed)]) for seed in (1, 2)
    ]
    for thread in adding:
        thread.start()
    for thread in adding:
        thread.join()
    assert [run["seed"] for run in grid.Grid("g", "title").runs] == [0, 1, 2]


def test_a_run_that_was_stopped_keeps_its_folder_and_one_on_record_is_not_repeated(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(grid, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(grid, "ROOT", tmp_path)
    folders = []

    def measure(network, images, point, method, folder):
        folder.mkdir(parents=True, exist_ok=True)
        folders.append(folder)
        if len(folders) == 1:
            raise KeyboardInterrupt
        return recorded(method, point.seed)

    monkeypatch.setattr(grid, "measure", measure)
    runs, point = grid.Grid("g", "title"), grid.Point("gdfq", "w3a3", 0)
    with pytest.raises(KeyboardInterrupt):
        runs.play(None, None, point)
    assert folders[0].is_dir()
    assert runs.runs == []
    for _ in range(2):
        runs.play(None, None, point)
    assert folders == [folders[0]] * 2
    assert not folders[0].exists()
    assert [run["method"] for run in runs.runs] == ["gdfq"]


def test_the_full_schedule_is_six_whole_runs_of_the_published_one(tmp_path, monkeypatch):
    played = []

    def play(self, network, images, point):
        played.append(point)
        method = METHODS[point.method].resolved(point.preset, (3, 32, 32))
        run = recorded(point.method, point.seed) | {"bits": point.bits}
        self.add(run | {"schedule": {"iterations": method.iterations}})

    monkeypatch.setattr(grid, "RESULTS", tmp_path)
    monkeypatch.setattr(grid.Grid, "play", play)
    monkeypatch.setattr(full_schedule, "cifar", lambda data, factory: (None, None))
    monkeypatch.setattr(full_schedule, "page", lambda runs: [f"{len(runs)} runs"])
    monkeypatch.setattr("sys.argv", ["full_schedule.py"])
    full_schedule.main()
    assert len(set(played)) == 6
    assert {point.iterations for point in played} == {None}
    runs = json.loads((tmp_path / "full-schedule-cifar10.json").read_text())["runs"]
    assert {run["schedule"]["iterations"] for run in runs} == {80_000}
    assert (tmp_path / "full-schedule-cifar10.md").read_text() == "6 runs\n"


# ------------------------------------------------------------ the yardstick of speed


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("method", ["adadfq", "gdfq"])
def test_the_yardstick_computes_what_a_step_of_ours_does(method, monkeypatch):
    run = timed.training_of(method, "resnet20", 4, "32", "cpu", compile=False)
    yardstick = PlainLoop(run)
    drawn = []
    make = run.images.make
    monkeypatch.setattr(run.images, "make", lambda asked: drawn.append(make(asked)) or drawn[-1])
    losses = run.step()
    (batch,) = drawn
    images = yardstick.synthesize(batch.latent, batch.targets)
    generator_loss, logits = yardstick.teach_generator(images, batch.targets)
    student_loss = yardstick.teach_student(images, batch.targets, logits)
    learner = run.learns.learner
    totals = [("generator", run.images, generator_loss), ("student", learner, student_loss)]
    for player, ours, total in totals:
        own = sum(w.weight * losses[f"{player}/{w.name}"] for w in ours.terms)
        torch.testing.assert_close(own, total)
    generator = dict(run.images.network.named_parameters())
    for name, theirs in yardstick.generator.named_parameters():
        # Biases that batch norm takes away are the yardstick's alone: nothing reaches them.
        ours = generator[name].grad if name in generator else torch.zeros_like(theirs)
        torch.testing.assert_close(ours, theirs.grad, rtol=1e-5, atol=1e-9)
    for ours, theirs in zip(learner.parameters, trained(yardstick.student), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-9)


def trained(student):
    return [parameter for parameter in student.parameters() if parameter.requires_grad]


def test_settings_that_the_hardware_only_imitates_are_left_out_with_the_reason(monkeypatch):
    cell = step.QUICK[0]
    for there in (True, False):
        monkeypatch.setattr(step, "has_bfloat16", lambda device, there=there: there)
        found = step.left_out(cell, "cpu")
        assert list(found) == ([] if there else ["bfloat16", "bfloat16 compiled"])
    assert set(found.values()) == {"no bfloat16 instructions on this hardware"}


# ------------------------------------------------------------------- memory of a step


def memory_of(batch, parts=1):
    run = timed.training_of("adadfq", "resnet20", batch, "32", "cpu", micro_batches=parts)
    run.step()
    return memory.measure(run)


@pytest.mark.long
def test_a_step_needs_little_more_than_its_networks_and_one_forward_pass():
    needed = memory_of(16)
    assert 1 < needed["ratio"] < 1.25
    larger = memory_of(32)
    assert larger["held"] == needed["held"]
    assert larger["activations"] == pytest.approx(2 * needed["activations"], rel=0.05)


@pytest.mark.long
def test_half_a_batch_at_a_time_needs_half_the_memory():
    whole, halves = memory_of(32), memory_of(32, parts=2)
    assert halves["peak"] - halves["held"] < 0.6 * (whole["peak"] - whole["held"])
