"""Images that are optimised again after the student has learned."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dreamquant.errors import MethodError
from dreamquant.methods import METHODS
from dreamquant.recovery.calibrate import Calibrate
from dreamquant.recovery.redream import Redream
from dreamquant.synthesis.pixels import Pixels
from dreamquant.terms.classes import TeacherCrossEntropy
from dreamquant.terms.logits import LogitMatching
from stored_runs import advance, bytes_of, method_of, run_of

IMAGES = Pixels((TeacherCrossEntropy(),), size=6, batch=4, steps=2)
AGAIN = Redream((-1.0 * LogitMatching(),), steps=5)


def test_images_go_on_from_what_they_are_against_the_student():
    run, images = run_of(method_of(IMAGES, Calibrate(count=6, batch=3), AGAIN))
    losses = advance(run)
    names = [name for name, _ in run.ended]
    assert names[-2:] == ["dreaming images 1 to 4 again", "dreaming images 5 to 6 again"]
    assert len(images.images) == 6
    gaps = [each["images/LogitMatching"] for each in losses if "images/LogitMatching" in each]
    assert gaps[4] > gaps[0]  # of the first batch


def test_a_stopped_run_ends_with_the_same_images():
    method = method_of(IMAGES, Calibrate(count=6, batch=3), AGAIN)
    whole, images = run_of(method)
    advance(whole)
    stopped, _ = run_of(method)
    total = whole.done
    advance(stopped, total - 7)  # within the first batch's second optimization
    state = stopped.state_dict()
    resumed, others = run_of(method, seed=5)
    resumed.load_state_dict(state)
    advance(resumed)
    assert bytes_of(others.images) == bytes_of(images.images)


def test_images_of_a_generator_are_refused():
    run, _ = run_of(method_of(replace(METHODS["gdfq"].images, alone=1, observe=0), AGAIN))
    with pytest.raises(MethodError, match="needs images of Pixels"):
        advance(run)
