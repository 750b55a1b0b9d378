"""Images refined for the student (SADAG)."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
import torch

from dreamquant.errors import MethodError
from dreamquant.methods import METHODS
from dreamquant.methods.method import Preset
from dreamquant.networks.classifier_input import ClassifierInput
from dreamquant.recovery.refine import Directions, RefineImages, mismatch, sameness
from stored_runs import SPEC, advance, bytes_of, images_of, run_of, small_network


def vectors(seed, images=4):
    random = np.random.default_rng(seed)
    return random.normal(size=(images, 3)), random.normal(size=(images, 2))


def gradient(f, r):
    """At the last layer: the outer product, as one vector of length 1."""
    whole = np.outer(r, f).ravel()
    return whole / np.linalg.norm(whole)


def test_likeness_is_the_cosine_of_whole_gradients():
    one, other = vectors(0), vectors(1)
    own, near = (Directions.of(*map(torch.from_numpy, each)) for each in (one, other))
    a, b = ([gradient(f, r) for f, r in zip(*each, strict=True)] for each in (one, other))
    cosines = np.array([[x @ y for y in b] for x in a])
    assert np.allclose(own.likeness(near), cosines)
    assert mismatch(own, near).item() == pytest.approx(1 - np.diag(cosines).mean())
    among = np.abs([[x @ y for y in a] for x in a]) * (1 - np.eye(4))
    wanted = np.maximum(among.max(1), np.abs(cosines).max(1)).mean()
    assert sameness(own, near).item() == pytest.approx(wanted)


def test_the_classifier_reads_what_is_pooled():
    network, images = small_network(), images_of(3)
    tap = ClassifierInput()
    tap.require(network, images)
    with tap.watch(network) as collected:
        output = network(images)
    read = tap.value(collected())
    assert torch.allclose(network.head(read), output)


def short(**numbers):
    method = METHODS["sadag"].resolved("quick", SPEC.shape)
    few = {"count": 8, "batch": 4}
    return method.with_numbers(
        Preset(
            images={"size": 6, "batch": 4, "steps": 2},
            recovery={
                "Calibrate": few,
                "Reconstruct": {**few, "steps": 2},
                "RefineImages": {"batch": 4, "steps": 2, **numbers},
            },
        )
    )


def test_a_first_network_then_refined_images_then_another():
    run, images = run_of(short())
    advance(run)
    names = [phase for phase, _ in run.ended]
    refined = names.index("refining images 1 to 4")
    assert names[refined + 1] == "refining images 5 to 6"
    assert names[refined + 2] == "rounding weights to nearest"
    assert names[2:refined] == names[refined + 2 :]
    assert images.images.isfinite().all()


def test_refining_lowers_what_it_minimises():
    run, _ = run_of(short(steps=60, lr=1e-2))
    losses = [each for each in advance(run) if "images/match" in each][:60]
    early, late = (sum(sum(each.values()) for each in part) for part in (losses[:10], losses[-10:]))
    assert late < early


@pytest.mark.parametrize("stop", [14, 15, 16, 20])
def test_a_stopped_run_goes_on_bit_for_bit(stop):
    whole, _ = run_of(short())
    advance(whole)
    first, _ = run_of(short())
    advance(first, stop)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second, _ = run_of(short(), seed=99)
    second.bench.seed = 0
    second.load_state_dict(torch.load(file))
    advance(second)
    assert bytes_of(second.state_dict()) == bytes_of(whole.state_dict())


def test_a_stream_cannot_be_refined():
    method = replace(METHODS["gdfq"].resolved("quick", SPEC.shape), recovery=(RefineImages([]),))
    run, images = run_of(method)
    with pytest.raises(MethodError, match="pool"):
        next(RefineImages([]).phases(run.bench, images))
