"""Methods of block reconstruction, GENIE, BRECQ and QDrop; and QwT, which needs none."""

from __future__ import annotations

import io

import pytest
import torch

from dreamquant.methods import METHODS
from dreamquant.methods.method import Preset
from dreamquant.recovery.reconstruct import Reconstruct
from stored_runs import SPEC, advance, bytes_of, run_of

BLOCKWISE = ("genie", "brecq", "qdrop")


def short(name, preset="quick"):
    """Images of two steps, then three steps a unit."""
    method = METHODS[name].resolved(preset, SPEC.shape)
    recovery = {
        "Calibrate": {"count": 8, "batch": 4},
        "Reconstruct": {"count": 8, "batch": 4, "steps": 3},
    }
    return method.with_numbers(
        Preset(images={"size": 8, "batch": 4, "steps": 2}, recovery=recovery)
    )


@pytest.mark.parametrize("preset", ["quick", "quick-imagenet", "paper"])
@pytest.mark.parametrize("name", BLOCKWISE)
def test_every_preset_runs_images_then_rounding_then_blocks(name, preset):
    run, _ = run_of(short(name, preset))
    losses = advance(run)
    doing = "distilling" if name == "genie" else "dreaming"
    assert [phase for phase, _ in run.ended] == [
        f"{doing} images 1 to 4",
        f"{doing} images 5 to 8",
        "rounding weights to nearest",
        "setting activation ranges",
        *(f"reconstructing {unit}" for unit in ("stem", "blocks.0", "blocks.1", "head")),
    ]
    assert run.bench.student.ranges_set()
    assert all(torch.isfinite(torch.tensor(list(each.values()))).all() for each in losses)


@pytest.mark.parametrize("name", BLOCKWISE)
def test_the_papers_numbers(name):
    method = METHODS[name].resolved("paper", (3, 224, 224))
    (part,) = (part for part in method.recovery if isinstance(part, Reconstruct))
    assert (part.steps, part.batch, part.count, part.lr_bits) == (20_000, 32, 1024, 1e-3)
    assert part.drop == (0.0 if name == "brecq" else 0.5)
    assert part.lr_range == (4e-4 if name == "brecq" else 4e-5)
    assert (part.lr_scale > 0) == (name == "genie")
    assert method.images.size == 1024
    assert method.scheme["first_last_bits"] == 8


@pytest.mark.parametrize("stop", [1, 3, 6, 12, 16, 20])
def test_a_stopped_run_goes_on_bit_for_bit(stop):
    method = short("genie")
    whole, _ = run_of(method)
    assert len(advance(whole)) > 22
    first, _ = run_of(method)
    advance(first, stop)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second, _ = run_of(method, seed=99)
    second.bench.seed = 0
    second.load_state_dict(torch.load(file))
    advance(second)
    assert bytes_of(second.state_dict()) == bytes_of(whole.state_dict())


def test_qwt_rounds_sets_ranges_and_rescales():
    few = {"count": 8, "batch": 4}
    method = METHODS["qwt"].resolved("quick", SPEC.shape)
    method = method.with_numbers(
        Preset(
            images={"size": 8, "batch": 4, "steps": 2},
            recovery={"Calibrate": few, "RescaleChannels": few},
        )
    )
    run, _ = run_of(method)
    advance(run)
    assert [phase for phase, _ in run.ended][2:] == [
        "rounding weights to nearest",
        "setting activation ranges",
        "rescaling channels",
    ]
