from __future__ import annotations

import pytest

from dreamquant.errors import TrainingError
from dreamquant.jobs import budget
from dreamquant.jobs.bench import begin, throwaway
from dreamquant.jobs.budget import fit
from dreamquant.recovery.calibrate import Calibrate
from dreamquant.synthesis.pixels import Pixels
from dreamquant.terms.classes import TeacherCrossEntropy
from dreamquant.training.phase import Phase, Run
from stored_runs import bench_of, method_of
from tiny_runs import short_method, tiny_run, training_of


class Timed(Phase):
    """Steps that take a known time by a fake clock."""

    stretches = True

    def __init__(self, total, clock, seconds, compiling):
        super().__init__()
        self.name, self.total, self.clock = "timed", total, clock
        self.seconds, self.compiling = seconds, compiling

    def step(self):
        self.clock[0] += self.seconds + self.compiling
        self.compiling = 0.0
        return {}


@pytest.fixture
def clock(monkeypatch):
    """Seconds so far, one number in a list."""
    now = [0.0]
    monkeypatch.setattr(budget.time, "perf_counter", lambda: now[0])
    return now


@pytest.fixture
def timed(clock):
    """``timed(warmup, learning)``: a builder of runs with that many s/iteration."""

    def builder(warmup, learning, compiling=0.0):
        def build(method):
            lengths = (method.images.alone, warmup), (training_of(method).iterations, learning)
            return Run(None, (Timed(n, clock, each, compiling) for n, each in lengths))

        return build

    return builder


METHOD = short_method(alone=25, learn=75, observe=10)


@pytest.mark.parametrize(
    ("warmup", "learning", "seconds", "iterations"),
    # Four iterations of each kind were timed before.
    [(1.0, 1.0, 58, 50), (1.0, 3.0, 116, 40), (0.01, 0.03, 100.16, 4000), (1.0, 3.0, 2516, 1000)],
)
def test_the_method_is_cut_to_the_time_there_is(warmup, learning, seconds, iterations, timed):
    fitted = fit(METHOD, seconds, timed(warmup, learning)).method
    assert fitted.iterations == pytest.approx(iterations, abs=1)
    assert fitted.images.alone == pytest.approx(iterations / 4, abs=1)
    assert fitted.images.observe == pytest.approx(iterations / 10, abs=1)
    takes = fitted.images.alone * warmup + training_of(fitted).iterations * learning
    assert takes + 4 * (warmup + learning) == pytest.approx(seconds, abs=3 * learning)


def test_what_compiling_takes_is_left_out_and_comes_again(timed):
    # In each of the two phases, when it is timed and when it is run.
    assert fit(METHOD, 58 + 4 * 7.0, timed(1.0, 1.0, 7.0)).method.iterations == 50


class Fixed(Timed):
    stretches = False


def test_phases_whose_length_the_network_gives_come_off_the_budget(timed, clock):
    def build(method):
        learning = timed(1.0, 1.0)(method)._phases
        return Run(None, iter((*learning, Fixed(30, clock, 0.5, 0.0))))

    # 8 s and 2 s to time them, 15 s for the phase of fixed length.
    assert fit(METHOD, 10 + 15 + 50, build).method.iterations == 50
    with pytest.raises(TrainingError, match=r"cannot be shortened 15 s"):
        fit(METHOD, 26, build)


def test_a_pool_that_is_timed_has_images_for_what_comes_after_it():
    source = Pixels([TeacherCrossEntropy()], size=6, batch=4, steps=9)
    method = method_of(source, Calibrate(count=8, batch=4))
    bench = bench_of(method)
    fitted = fit(method, 20.0, lambda method: begin(throwaway(bench), method)[0]).method
    assert fitted.images.steps > 9
    assert not bench.student.ranges_set()


@pytest.mark.parametrize("seconds", [9.9, 0.0, -10.0])
def test_too_little_time_is_refused(seconds, timed):
    with pytest.raises(TrainingError, match=r"^\d+ s are left .* one iteration takes 1 s") as e:
        fit(METHOD, seconds, timed(1.0, 1.0))
    assert e.value.where == "--budget"


def test_a_real_run_is_timed_on_a_bench_that_is_thrown_away():
    method = short_method()
    tiny, built = tiny_run(method), []
    before = {name: tensor.clone() for name, tensor in tiny.bench.state_dict()["student"].items()}
    drawn = tiny.bench.rng.asked.get_state()

    def build(method):
        built.append(begin(throwaway(tiny.bench), method)[0])
        return built[-1]

    assert fit(method, 60.0, build).method.iterations > 100
    assert len(built) == 1
    assert built[0].bench.student is not tiny.student
    assert all(t.equal(before[name]) for name, t in tiny.student.state_dict().items())
    assert tiny.bench.rng.asked.get_state().equal(drawn)
