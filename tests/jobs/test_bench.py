"""The bench of a job has both networks with their taps; the caller's network is not moved."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

import tiny
from dreamquant.errors import NetworkError
from dreamquant.jobs import bench as benches
from dreamquant.jobs.bench import begin, set_up, throwaway
from dreamquant.jobs.run_request import RunRequest
from dreamquant.networks.norm_inputs import BatchNormInputs
from dreamquant.networks.relu_maps import LastMap
from dreamquant.networks.taps import Output
from dreamquant.quantization.convert import quantize_network
from dreamquant.quantization.scheme import Bits, Scheme
from dreamquant.terms.classes import TeacherCrossEntropy
from tiny_runs import WITH_GENERATOR, short_method, tiny_run, tiny_teacher, with_images

READING_NORMS = [m for m in WITH_GENERATOR if BatchNormInputs() in short_method(m).teacher_taps]


def on(device, network, method=None):
    """A bench set up as on such a device."""
    request = RunRequest(device="cpu")
    accelerator = request.accelerator()
    accelerator.state.device = torch.device(device)
    student, _ = quantize_network(
        network.module, Scheme(Bits(3, 3)), torch.zeros(2, *network.input.shape)
    )
    chosen = method or short_method()
    return set_up(network, network.module, student, chosen, request, accelerator)


def test_on_the_cpu_the_callers_network_is_the_teacher():
    network = tiny_teacher()
    bench = on("cpu", network)
    assert bench.teacher is bench.prepared is network.module
    assert bench.example().shape == (2, *tiny.INPUT.shape)


def test_on_another_device_the_callers_network_stays_where_it_is(monkeypatch):
    # A device without memory stands for any other: what is looked at is who goes there.
    monkeypatch.setattr(benches, "_watched", lambda network, *_: network)
    monkeypatch.setattr(benches.Players, "__init__", lambda self, teacher, student: None)
    monkeypatch.setattr(benches.Rng, "seeded", lambda seed, device: None)
    network = tiny_teacher()
    bench = on("meta", network)
    assert {tensor.device.type for tensor in network.module.state_dict().values()} == {"cpu"}
    assert {tensor.device.type for tensor in bench.prepared.state_dict().values()} == {"meta"}
    held = (*bench.student.parameters(), *bench.student.buffers())
    assert {tensor.device.type for tensor in held} == {"meta"}


def test_taps_are_those_of_the_methods_terms():
    bench = on("cpu", tiny_teacher(), short_method("acq"))
    assert set(bench.players.teacher.taps) == {BatchNormInputs(), LastMap()}
    assert bench.players.student.taps == (Output(),)
    plain = with_images(short_method("gdfq"), terms=[TeacherCrossEntropy()])
    assert on("cpu", tiny_teacher(), plain).players.teacher.taps == ()


@pytest.mark.parametrize("method", READING_NORMS)
def test_a_network_without_batch_norm_is_refused_where_terms_read_it(method):
    with pytest.raises(NetworkError, match="and it has no batch norm"):
        on("cpu", tiny_teacher(without_batch_norm()), short_method(method))


def test_a_network_without_batch_norm_serves_methods_that_read_none():
    method = with_images(short_method("gdfq"), terms=[TeacherCrossEntropy()])
    losses = tiny_run(method, network=without_batch_norm()).steps(5).step()
    assert all(value.isfinite() for value in losses.values())


def without_batch_norm():
    torch.manual_seed(0)
    parts = [part for part in tiny.network() if not isinstance(part, nn.BatchNorm2d)]
    return nn.Sequential(*parts).eval().requires_grad_(False)


def test_no_phase_is_made_before_it_is_asked_for():
    run = tiny_run(short_method())
    assert (run.run.phase, run.run.index, run.run.done) == (None, -1, 0)
    assert run.bench.images is run.images


def test_what_is_thrown_away_leaves_no_trace():
    run = tiny_run(short_method())
    before = {name: tensor.clone() for name, tensor in run.student.state_dict().items()}
    drawn = run.bench.rng.asked.get_state()
    probe = throwaway(run.bench)
    other, _ = begin(probe, run.method)
    for _ in other.steps():
        pass
    assert all(t.equal(before[name]) for name, t in run.student.state_dict().items())
    assert run.bench.rng.asked.get_state().equal(drawn)
    assert run.bench.images is run.images
    # It went the same way that the run itself goes.
    run.to_the_end()
    theirs = probe.student.state_dict()
    assert all(t.equal(theirs[name]) for name, t in run.student.state_dict().items())


def test_a_method_without_images_begins_with_its_recovery():
    method = replace(short_method(), images=None, recovery=())
    run = tiny_run(method)
    assert run.images is None
    assert list(run.run.steps()) == []
