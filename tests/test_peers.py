"""The commands for peers and the sweep of all methods are well-formed; none is run."""

from __future__ import annotations

import pytest
import torch

import field
import peers
import peers_page
from dreamquant.evaluation.data import open_images
from dreamquant.jobs.cell import known
from dreamquant.jobs.grid import read_grid
from dreamquant.methods import METHODS
from dreamquant.networks import demo
from grid import DATA


def test_lines_are_those_that_a_person_writes(tmp_path) -> None:
    script = tmp_path / "tool.py"
    script.write_text('"""What it is."""\n\nimport a\n\n# why\nfor x in a:\n    print(x)\n')
    assert peers.lines_of(script) == 3


def test_noise_is_made_of_pixels_and_real_images_come_after_the_measured_ones() -> None:
    network = demo.teacher()
    images = open_images(demo.HELD_OUT, network.input)
    noise = peers.calibration("noise", images, network, 100)
    std, mean = network.input.std[0], network.input.mean[0]
    pixels = noise * std + mean
    assert pixels.min() >= -1e-6
    assert pixels.max() <= 1 + 1e-6
    real = peers.calibration("real", images, network, 100)
    (following,) = list(images.first(164).batches(164))
    torch.testing.assert_close(real, following[100:])
    assert noise.shape == real.shape == peers.calibration("randn", images, network, 100).shape


def test_a_failure_is_a_row_with_its_reason() -> None:
    machine = {"hardware": {"cpu": "a cpu", "threads": 1}, "versions": {"torch": "2"}}
    cell = {"network": "n", "tool": "NNCF", "calibrated": "noise", "images": 3, "top1": None}
    run = {**cell, "float_top1": 90.0, "failed": "a reason", "machine": machine}
    page = "\n".join(peers_page.page([run]))
    assert "| n | NNCF | noise | – | 90.00 |" in page
    assert "NNCF on n (noise) failed: a reason" in page


@pytest.mark.skipif(not DATA.exists(), reason="the shared weights are not here")
def test_the_field_has_every_method_that_serves_a_convolutional_classifier() -> None:
    cells = read_grid(field.GRID)
    asked = {cell.options["method"] for cell in cells}
    attentive = {"psaq_vit", "psaq_vit_v2", "mimiq", "sardfq", "maskaq"}
    assert asked == METHODS.keys() - attentive - {"dqdg"}  # which is for sound
    assert len(cells) == 4 * len(asked)


def test_a_sweep_on_record_goes_on_without_its_folder(tmp_path) -> None:
    name = read_grid(field.GRID)[0].name
    (tmp_path / "record" / name).mkdir(parents=True)
    (tmp_path / "record" / name / "manifest.json").write_text("{}")
    (tmp_path / "record" / "failures").mkdir()
    (tmp_path / "record" / "failures" / "other.json").write_text('{"cell": "other"}')
    field.restore(tmp_path / "record", tmp_path / "out")
    assert known(tmp_path / "out", read_grid(field.GRID)[0]) is not None
    assert (tmp_path / "out" / "failures" / "other.json").read_text() == '{"cell": "other"}'
