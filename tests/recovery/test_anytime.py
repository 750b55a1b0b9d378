"""Stages, the best of which is kept."""

from dataclasses import dataclass, replace

import pytest
import torch

from dreamquant.methods.stages import SMALL
from dreamquant.quantization.scheme import Bits, Scheme
from dreamquant.recovery.anytime import Anytime, Stage
from dreamquant.recovery.calibrate import Calibrate
from dreamquant.recovery.closed_form import RoundByLeastSquares
from dreamquant.recovery.course import Course, Judging
from dreamquant.recovery.part import Recovery
from dreamquant.synthesis.drawn import Procedural
from dreamquant.synthesis.pixels import Pixels
from dreamquant.synthesis.probe import JUDGED
from dreamquant.training.deadline import Deadline
from dreamquant.training.phase import Phase, Run

CALIBRATE = Calibrate(count=16, batch=16)
FIRST = Stage("rounding", (CALIBRATE,), Procedural(size=16))
SECOND = Stage(
    "least squares", (RoundByLeastSquares(count=32, batch=16, damp=0.1),), Procedural(size=32)
)


class _Ruin(Phase):
    name, total = "ruining", 1

    def __init__(self, bench):
        super().__init__()
        self.bench = bench

    @torch.no_grad()
    def step(self):
        for parameter in self.bench.student.parameters():
            parameter.zero_()
        return {}


@dataclass(frozen=True)
class Ruin(Recovery):
    """Leaves a student that agrees with nobody."""

    def phases(self, bench, images):
        yield _Ruin(bench)


def run_of(bench, *stages):
    return Run(bench, Anytime(stages, judged_on=64, enough=101.0).phases(bench, None))


def state_of(bench):
    return {name: tensor.clone() for name, tensor in bench.student.state_dict().items()}


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def test_a_worse_stage_leaves_the_student_that_was_better(make_network, make_bench):
    bench = make_bench(make_network(), bits="w8a8", placement="layer-input")
    list(run_of(bench, FIRST).steps())
    best = state_of(bench)
    bench = make_bench(make_network(), bits="w8a8", placement="layer-input")
    found = []
    run = run_of(bench, FIRST, Stage("ruin", (Ruin(),), anew=False))
    for _ in run.steps():
        if run.phase.finding is not None:
            found.append(run.phase.finding)
    assert [each["kept"] for each in found] == [True, False]
    assert same(state_of(bench), best)


@pytest.mark.parametrize("stopped_after", [3, 8, 12, 20])
def test_a_stopped_run_goes_on_to_the_same_student(make_network, make_bench, stopped_after):
    whole, halves = (make_bench(make_network(), placement="layer-input") for _ in range(2))
    run = run_of(whole, FIRST, SECOND)
    saved = None
    for done, _ in enumerate(run.steps(), 1):
        if done == stopped_after:
            saved = torch.load(_bytes(run.state_dict()), weights_only=True)
    rest = run_of(halves, FIRST, SECOND)
    rest.load_state_dict(saved)
    list(rest.steps())
    assert same(state_of(whole), state_of(halves))


def _bytes(state):
    import io

    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return buffer


def test_out_of_time_it_ends_with_the_best_so_far(make_network, make_bench):
    bench = make_bench(make_network(), placement="layer-input")
    run = run_of(bench, FIRST, SECOND)
    for _ in run.steps():
        if run.phase.finding is not None:
            best = state_of(bench)
            bench.deadline = Deadline(0)
    assert run.cut == "its time is up"
    assert same(state_of(bench), best)


def test_a_run_cut_within_a_layer_leaves_both_networks_as_they_were(make_network, make_bench):
    network = make_network()
    adapting = Stage("adapted", (replace(SECOND.recovery[0], adapt=True),), Procedural(size=32))
    bench = make_bench(network, placement="layer-input")
    x = torch.randn(4, 3, 8, 8)
    before = network(x)
    run = run_of(bench, FIRST, adapting)
    for _ in run.steps():
        if run.phase.name == "rounding weights by least squares" and run.phase.done == 4:
            run.cut = "as asked"
    assert torch.equal(network(x), before)
    modules = [*network.modules(), *bench.student.modules()]
    assert not any("forward" in vars(module) for module in modules)


def test_stages_that_the_network_does_not_support_are_left_out_by_name(make_network):
    example = torch.zeros(2, 3, 8, 8)
    scheme = Scheme(Bits(4, 4), placement="layer-input")
    assert Anytime(SMALL).suited(make_network(), example, scheme) == Anytime(SMALL)
    without = Anytime(SMALL).suited(make_network(norms=False), example, scheme)
    assert without.stages == SMALL[:2]
    dreamed, trained = without.left_out
    assert dreamed[0] == "least squares on dreamed images"
    assert "batch-norm" in dreamed[1]
    assert trained == (
        "training on the same images",
        "it uses the images of 'least squares on dreamed images'",
    )


def test_stages_are_not_ranked_on_a_kind_of_images_that_one_of_them_uses():
    used = {stage.images.kind for stage in SMALL if isinstance(stage.images, Procedural)}
    used |= {stage.images.start for stage in SMALL if isinstance(stage.images, Pixels)}
    assert not used & set(JUDGED)


@torch.no_grad()
def test_agreement_is_of_outputs_and_full_where_they_are_equal(make_network, make_bench):
    bench = make_bench(make_network(), placement="layer-input")
    bench.student.forward = bench.teacher.forward
    judging = Judging(Course(bench), "rounding", count=64, batch=24)
    while not judging.over:
        judging.step()
        judging.done += 1
    assert judging.finding["agreement"] == pytest.approx(100)
    assert judging.finding["of"] == judging.explained.images == 64


@pytest.mark.parametrize(("bits", "enough"), [((8, 8), 85), ((4, 8), 99), ((8, 4), 99)])
def test_at_8_bits_a_lower_agreement_is_enough(make_network, bits, enough):
    scheme = Scheme(Bits(*bits), placement="layer-input")
    example = torch.zeros(2, 3, 8, 8)
    assert Anytime(SMALL).suited(make_network(), example, scheme).enough == enough


def test_no_stage_begins_once_agreement_is_enough(make_network, make_bench):
    bench = make_bench(make_network(), bits="w8a8", placement="layer-input")
    run = Run(bench, Anytime((FIRST, SECOND), judged_on=64, enough=1.0).phases(bench, None))
    list(run.steps())
    assert bench.kept["course"].agreements[0] >= 1
    assert len(bench.kept["course"].agreements) == 1


def test_a_stage_for_pictures_is_left_out_for_features_by_name():
    method = Anytime((FIRST, replace(SECOND, pictures=True), SECOND)).for_features()
    assert method.stages == (FIRST, SECOND)
    assert method.left_out == (("least squares", "it is only for pictures"),)
