"""The commands for peers and the sweep of all methods are well-formed; none is run."""

from __future__ import annotations

import tomllib

import pytest
import torch

import field
import peers
import peers_page
from dreamquant.evaluation.data import open_images
from dreamquant.methods import METHODS
from dreamquant.networks import demo
from dreamquant.results.files import read_json, write_json
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
    # Not by read_grid, which asks for the real weights.
    asked = tomllib.loads(field.grid_of("field-cifar10").read_text())["grid"]["method"]
    attentive = {"psaq_vit", "psaq_vit_v2", "mimiq", "sardfq", "maskaq", "smi"}
    assert set(asked) == METHODS.keys() - attentive - {"dqdg"}  # which is for sound
    assert len(asked) == len(set(asked))


def test_a_sweep_on_record_goes_on_without_its_folder(tmp_path) -> None:
    record, out = tmp_path / "record", tmp_path / "out"
    manifest = {"network": {"name": "/home/a/nets.py:make", "weights": "/home/a/w.pt", "sha": "1"}}
    for name, kept in {
        "ended/manifest.json": {},
        "cell/manifest.json": manifest,
        "failures/other.json": {"error": "no time"},
    }.items():
        (record / name).parent.mkdir(parents=True, exist_ok=True)
        write_json(record / name, kept)
    (out / "ended").mkdir(parents=True)
    write_json(out / "ended" / "manifest.json", {"newer": 1})
    field.restore(record, out)
    assert read_json(out / "ended" / "manifest.json") == {"newer": 1}
    assert read_json(out / "failures" / "other.json") == {"error": "no time"}
    network = read_json(out / "cell" / "manifest.json")["network"]
    assert network == {"name": "nets.py:make", "weights": "w.pt", "sha": "1"}
