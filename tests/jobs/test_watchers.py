from __future__ import annotations

from types import SimpleNamespace

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dreamquant.jobs import watchers
from dreamquant.jobs.checkpoint import STATE, read
from dreamquant.jobs.progress import ProgressDisplay
from dreamquant.jobs.tensorboard import TensorBoardLog
from dreamquant.jobs.watchers import Checkpoints, Evaluations, History, Record
from tiny_runs import short_method, tiny_run


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass only when told to; two processors are at work in all of them."""
    now = [0.0]
    clocks = SimpleNamespace(monotonic=lambda: now[0], process_time=lambda: 2 * now[0])
    monkeypatch.setattr(watchers, "time", clocks)
    return now


class NotedDisplay(ProgressDisplay):
    """Shows nothing, and keeps what it was to show."""

    def __init__(self):
        super().__init__(quiet=True)
        self.notes = []

    def note_accuracy(self, text, iteration):
        self.notes.append((text, iteration))


def at(done, *, index=0, name="student learns", images=4, local=None):
    """A run as watchers see it, after so many steps."""
    phase = SimpleNamespace(
        name=name,
        kind="",
        in_training_precision=name == "b",
        done=done if local is None else local,
        images=images,
        finding=None,
    )
    return SimpleNamespace(done=done, index=index, phase=phase)


# --------------------------------------------------------------------------- history


def test_history_keeps_losses_and_the_seconds_of_all_processes(clock):
    record = Record(seconds=100.0)
    watch = History(record)
    for iteration, losses in ((1, None), (2, {"student/KD": 0.5}), (3, None)):
        clock[0] += 2.0
        watch(at(iteration), losses)
    assert record.losses == [{"iteration": 2, "student/KD": 0.5}]
    assert record.seconds == 106.0
    assert record.cpu_seconds == 12.0
    assert record.images == 12


def test_history_keeps_the_steps_and_seconds_of_each_phase(clock):
    record = Record()
    watch = History(record, "bf16")
    steps = [(1, 0, "a", 1), (2, 0, "a", 2), (3, 1, "b", 1)]
    for done, index, name, local in steps:
        clock[0] += 2.0
        watch(at(done, index=index, name=name, local=local), None)
    # Another process goes on from there.
    watch = History(Record(**vars(record)), "bf16")
    clock[0] += 5.0
    watch(at(4, index=1, name="b", local=2), None)
    assert watch.record.phases == [
        {"name": "a", "kind": "a", "precision": "32", "iterations": 2, "seconds": 4.0},
        {"name": "b", "kind": "b", "precision": "bf16", "iterations": 2, "seconds": 7.0},
    ]


# ----------------------------------------------------------------------- evaluations


def evaluated(run, looks=3, glance=lambda student: (75.0, 40)):
    record, moving, display = Record(), [], NotedDisplay()

    def whole(student):
        moving.append(any(q.observing for q in student.activation_quantizers().values()))
        return {"top1": 50.0, "at": run.run.done}

    with display:
        run.to_the_end(Evaluations(History(record), display, whole, glance, looks))
    return record, display, moving


def test_ranges_only_is_measured_once_when_the_ranges_are_set():
    record, _, moving = evaluated(tiny_run(short_method()))
    assert record.ranges_only == {"top1": 50.0, "at": 2}
    assert record.ranges_set_at == 2
    # The images of the evaluation must not move the ranges.
    assert moving == [False]


def test_measuring_on_the_way_is_no_training(clock):
    run = tiny_run(short_method())
    record, display = Record(), NotedDisplay()
    history = History(record)

    def slowly(found):
        clock[0] += 50.0
        return found

    measuring = Evaluations(
        history, display, lambda student: slowly({}), lambda student: slowly((75.0, 40))
    )
    with display:
        run.to_the_end(lambda *_: slowly(None), history, measuring)
    assert len(record.accuracy) > 1
    assert record.seconds == 6 * 50.0


def test_glances_are_evenly_spread_over_learning_and_not_at_the_end():
    record, display, _ = evaluated(tiny_run(short_method(alone=3, learn=9)), looks=4)
    assert [entry["iteration"] for entry in record.accuracy] == [5, 7, 9, 11]
    assert record.accuracy[0] == {"iteration": 5, "top1": 75.0, "n": 40}
    assert display.notes[0] == ("top-1 75.0 % of 40", 5)


def test_without_labels_nothing_is_noted():
    record, display, _ = evaluated(tiny_run(short_method()), glance=lambda student: None)
    assert record.accuracy == []
    assert display.notes == []


def test_more_looks_than_iterations_are_as_many_as_there_are():
    record, _, _ = evaluated(tiny_run(short_method(alone=1, learn=3)), looks=100)
    assert [entry["iteration"] for entry in record.accuracy] == [2, 3]


def test_evaluations_leave_the_run_as_it_is():
    watched, alone = tiny_run(short_method()), tiny_run(short_method())
    evaluated(watched)
    alone.to_the_end()
    for ours, theirs in zip(
        watched.student.state_dict().values(), alone.student.state_dict().values(), strict=True
    ):
        assert ours.equal(theirs)


# ----------------------------------------------------------------------- TensorBoard


def scalars(folder):
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return {
        tag: [(event.step, pytest.approx(event.value)) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def write(folder, record, iterations, done=0):
    log = TensorBoardLog(folder, record, done)
    for iteration in iterations:
        if iteration == 15:
            record.accuracy.append({"iteration": 15, "top1": 62.5, "n": 8})
        losses = {"student/KD": iteration / 2} if iteration % 10 == 0 else None
        log(at(iteration), losses)
    log.close()
    # Files are read in the order of their names, which begin with the second of their making.
    for file in folder.glob("events.*"):
        file.rename(file.with_name(f"{len(list(folder.iterdir()))}.tfevents"))


WHOLE = {
    "loss/student/KD": [(10, 5.0), (20, 10.0), (30, 15.0)],
    "accuracy/top1": [(15, 62.5)],
}


def test_the_log_has_losses_and_accuracies_under_stable_names(tmp_path):
    write(tmp_path, Record(), range(1, 31))
    assert scalars(tmp_path) == WHOLE


@pytest.mark.parametrize("stop", [9, 10, 14, 15, 16, 20, 30])
def test_a_resumed_log_has_everything_once(stop, tmp_path):
    record = Record()
    write(tmp_path, record, range(1, stop + 1))
    write(tmp_path, record, range(stop + 1, 31), done=stop)
    assert scalars(tmp_path) == WHOLE


@pytest.mark.parametrize("done", [0, 10])
def test_what_a_killed_run_logged_after_its_checkpoint_is_replaced(done, tmp_path):
    write(tmp_path, Record(), range(1, 31))
    write(tmp_path, Record(), range(done + 1, 31), done=done)
    assert scalars(tmp_path) == WHOLE


# ----------------------------------------------------------------------- checkpoints


class Saver:
    """Counts what it is asked to write, and writes it."""

    def __init__(self):
        self.files = []

    def __call__(self, path, data):
        self.files.append(path)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)


@pytest.mark.parametrize(
    ("cost", "pause"), [(0.001, 1.0), (0.02, 2.0), (0.6, 60.0), (30.0, 60.0)], ids=str
)
def test_checkpoints_come_by_their_cost_and_only_after_finite_losses(cost, pause, clock, tmp_path):
    saved = []

    def write(path, data):
        saved.append(path)
        clock[0] += cost

    run = tiny_run(short_method()).steps(1).run
    watch = Checkpoints(tmp_path, write, {}, Record())
    for seconds, losses, count in ((0.9, {}, 0), (1.1, None, 0), (1.1, {}, 1)):
        clock[0] = seconds
        watch(run, losses)
        assert len(saved) == count, seconds
    after = clock[0]
    for seconds, count in ((0.99 * pause, 1), (1.01 * pause, 2)):
        clock[0] = after + seconds
        watch(run, {})
        assert len(saved) == count, seconds


def test_a_checkpoint_holds_configuration_record_and_run(tmp_path):
    run = tiny_run(short_method()).steps(3).run
    record = Record(losses=[{"iteration": 1, "student/KD": 0.5}], seconds=3.5, iterations=6)
    Checkpoints(tmp_path / "checkpoint", Saver(), {"seed": 3}, record).save(run)
    state = read(tmp_path / "checkpoint")
    assert state["configuration"] == {"seed": 3}
    assert Record(**state["record"]) == record
    assert (state["run"]["index"], state["run"]["done"]) == (1, 1)
    assert (tmp_path / "checkpoint" / STATE).is_file()


def test_only_the_first_process_saves(tmp_path):
    run, write = tiny_run(short_method()).steps(1).run, Saver()
    run.bench.accelerator = SimpleNamespace(is_main_process=False)
    Checkpoints(tmp_path / "checkpoint", write, {}, Record()).save(run)
    assert not write.files
    assert not (tmp_path / "checkpoint").exists()
