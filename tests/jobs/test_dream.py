"""Pools on disk are made shard by shard, stopped, resumed, read and used."""

from __future__ import annotations

import json
import signal

import numpy as np
import pytest
import torch
from PIL import Image

from dreamquant import quantize
from dreamquant.cli import main as cli
from dreamquant.errors import DataError, MethodError, ResultError, TrainingError
from dreamquant.jobs import dream as job
from dreamquant.jobs.dream import dream
from dreamquant.networks import demo
from dreamquant.results.pool import POOL, SHEET, open_pool
from dreamquant.synthesis.procedural import input_moments, procedural

QUICK = {"device": "cpu", "precision": "32", "quiet": True}
FEW = {**QUICK, "iterations": 9, "count": 150}


@pytest.fixture(scope="module")
def teacher():
    return demo.teacher()


@pytest.fixture(scope="module")
def made(teacher, tmp_path_factory):
    """150 images of HAST in three shards, three steps each."""
    folder = tmp_path_factory.mktemp("pool") / "out"
    return folder, dream(teacher, "hast", out=folder, **FEW)


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}


def test_a_pool_has_shards_a_sheet_and_a_manifest(made, teacher):
    folder, pool = made
    assert sorted(path.name for path in folder.iterdir()) == [
        *(f"images-{index:05d}.safetensors" for index in range(3)),
        SHEET,
        POOL,
    ]
    manifest = json.loads((folder / POOL).read_text())
    assert [shard["images"] for shard in manifest["shards"]] == [64, 64, 22]
    assert manifest["network"]["weights_sha256"] == teacher.weights_sha256
    assert manifest["method"]["name"] == "hast"
    assert manifest["method"]["images"]["steps"] == 3
    assert (manifest["count"], manifest["dtype"], manifest["seed"]) == (150, "float16", 0)
    assert len(manifest["classes"]) == len(manifest["confidence"]) == len(pool) == 150
    assert manifest["mib"] == pytest.approx(
        sum(len(data) for data in files_of(folder).values()) / 2**20
    )
    assert Image.open(folder / SHEET).size[0] > 100


def test_classes_and_confidence_are_the_teachers_on_the_images_as_kept(made, teacher):
    _, pool = made
    with torch.no_grad():
        probability, classes = teacher.module(pool.read(range(150))).softmax(1).max(1)
    assert classes.tolist() == pool.manifest["classes"]
    assert np.allclose(probability, pool.manifest["confidence"], atol=1e-4)


def test_rows_come_in_any_order_and_across_shards(made):
    _, pool = made
    whole = pool.read(range(150))
    rows = [149, 0, 63, 64, 127, 128, 3]
    assert pool.read(rows).equal(whole[rows])


def test_equal_runs_give_equal_shards(made, teacher, tmp_path):
    folder, _ = made
    dream(teacher, "hast", out=tmp_path / "again", **FEW)
    assert files_of(tmp_path / "again") == files_of(folder)


@pytest.mark.parametrize("steps", [1, 6])
def test_a_run_that_was_stopped_goes_on_to_the_same_pool(
    made, teacher, tmp_path, monkeypatch, steps
):
    folder, left = made[0], [steps]
    usual = job.run_to_the_end

    def stop(run, losses):
        left[0] -= 1
        if not left[0]:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(job, "run_to_the_end", lambda run, watchers: usual(run, [stop, *watchers]))
        with pytest.raises(KeyboardInterrupt):
            dream(teacher, "hast", out=tmp_path / "out", **FEW)
    assert not (tmp_path / "out" / POOL).exists()
    with pytest.raises(ResultError, match="unfinished"):
        dream(teacher, "hast", out=tmp_path / "out", **FEW)
    with pytest.raises(TrainingError, match="seed"):
        dream(teacher, "hast", out=tmp_path / "out", seed=1, resume=True, **FEW)
    dream(teacher, "hast", out=tmp_path / "out", resume=True, **FEW)
    assert files_of(tmp_path / "out") == files_of(folder)
    assert len(dream(teacher, "hast", out=tmp_path / "out", resume=True, **FEW)) == 150


def test_no_more_than_a_shard_is_in_memory_however_many_images(teacher, tmp_path, monkeypatch):
    held = []
    usual = job.run_to_the_end

    def look(run, losses):
        held.append(len(run.bench.images.images))

    monkeypatch.setattr(job, "run_to_the_end", lambda run, ws: usual(run, [look, *ws]))
    dream(teacher, "procedural", out=tmp_path / "out", count=300, **QUICK)
    assert held == [64, 64, 64, 64, 44]


def test_a_budget_sets_the_steps(teacher, tmp_path):
    pool = dream(teacher, "minutes", out=tmp_path / "out", count=8, budget="6s", **QUICK)
    assert pool.manifest["method"]["images"]["steps"] > 1
    assert pool.manifest["request"]["budget"] == "6s"


def test_procedural_images_are_those_of_the_recipe(teacher, tmp_path):
    pool = dream(teacher, "pink-noise", out=tmp_path / "out", count=8, seed=5, **QUICK)
    from dreamquant.synthesis.pink_noise import PinkNoise
    from dreamquant.training.rng import Rng

    random = Rng.seeded(6, torch.device("cpu")).random
    spec = teacher.input
    wanted = procedural(PinkNoise(), 8, spec.image, input_moments(spec), random)
    assert torch.allclose(pool.read(range(8)), wanted, atol=2e-3)


@pytest.mark.parametrize(
    ("method", "message"),
    [("squant", "reads no images"), ("gdfq", "in turns with the student"), ("hats", "no method")],
)
def test_a_method_without_images_of_its_own_is_refused(teacher, tmp_path, method, message):
    with pytest.raises(MethodError, match=message):
        dream(teacher, method, out=tmp_path / "out", **QUICK)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_holds_a_pool_is_refused(made, teacher):
    with pytest.raises(ResultError, match="already holds a pool"):
        dream(teacher, "hast", out=made[0], **FEW)


def test_the_command_makes_a_pool_that_the_next_one_uses(tmp_path, capsys):
    network = (f"{demo.NETWORK}:digits", "--weights", str(demo.WEIGHTS))
    spec = ("--input", "1x8x8", "--mean", "0.3054", "--std", "0.3758", "--device", "cpu")
    pool, out = str(tmp_path / "pool"), str(tmp_path / "out")
    for arguments in (
        (
            "dream",
            *network,
            *spec,
            "--method",
            "minutes",
            "--count",
            "40",
            "--iterations",
            "3",
            "--out",
            pool,
        ),
        (
            "quantize",
            *network,
            *spec,
            "--method",
            "minutes",
            "--images",
            pool,
            "--out",
            out,
            "--quiet",
        ),
    ):
        with pytest.raises(SystemExit) as stopped:
            cli.main([str(each) for each in arguments])
        assert not stopped.value.code
    shown = capsys.readouterr().out
    assert "40 images by minutes" in shown
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["request"]["images"] == pool
    assert manifest["protocol"]["images"] == "kept pool by minutes, 40 images"
    assert (
        manifest["method"]["images"]["sha256"]
        == open_pool(tmp_path / "pool", demo.teacher().input).sha256
    )
    assert "kept pool by minutes" in (tmp_path / "out" / "report.html").read_text()


# --------------------------------------------------------------------- damaged and foreign pools


def copied(folder, to):
    to.mkdir()
    for path in folder.iterdir():
        (to / path.name).write_bytes(path.read_bytes())
    return to


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "images-00001.safetensors").unlink(), "images-00001.safetensors cannot"),
        (lambda f: (f / "images-00002.safetensors").write_bytes(b"x"), "not the file that"),
        (lambda f: (f / POOL).write_text("{"), "not JSON"),
        (lambda f: (f / POOL).write_text('{"schema": 9}'), "schema 9"),
        (lambda f: (f / POOL).write_text('{"schema": 1}'), "damaged"),
    ],
)
def test_a_damaged_pool_is_refused_by_name(made, teacher, tmp_path, damage, message):
    folder = copied(made[0], tmp_path / "copy")
    damage(folder)
    with pytest.raises(DataError, match=message):
        open_pool(folder, teacher.input)


def test_a_pool_of_another_size_is_refused(made, teacher):
    from dataclasses import replace

    with pytest.raises(DataError, match="1 x 8 x 8, but the network takes 1 x 9 x 9"):
        open_pool(made[0], replace(teacher.input, shape=(1, 9, 9)))


def test_another_normalisation_sees_the_same_pixels(made, teacher):
    from dataclasses import replace

    other = replace(teacher.input, mean=(0.1,), std=(0.5,))
    folder, pool = made
    own = pool.read([0, 100]) * teacher.input.std[0] + teacher.input.mean[0]
    seen = open_pool(folder, other).read([0, 100])
    assert torch.allclose(seen * 0.5 + 0.1, own, atol=1e-6)


def test_a_pool_for_another_teacher_is_a_warning_on_record(made, teacher, tmp_path):
    from dataclasses import replace

    other = replace(teacher, weights_sha256="0" * 64)
    with pytest.warns(UserWarning, match="made for another network"):
        result = quantize(other, "w8a8", "zeroq", images=str(made[0]), **QUICK)
    images = result.manifest["protocol"]["images"]
    assert images == "kept pool by hast for another network, 150 images"


# -------------------------------------------------------------------------- what takes their place


def test_methods_that_keep_images_take_others_and_the_rest_say_why_not(teacher):
    result = quantize(teacher, "w8a8", "zeroq", images="noise", **QUICK)
    assert result.manifest["protocol"]["images"] == "procedural (WhiteNoise), 64 images"
    assert result.manifest["method"]["images"]["kind"] == {"part": "WhiteNoise"}
    for method, message in (("nagel", "reads no images"), ("adadfq", "in turns")):
        with pytest.raises(MethodError, match=message):
            quantize(teacher, "w8a8", method, images="procedural", **QUICK)
    with pytest.raises(DataError, match="there is nothing at"):
        quantize(teacher, "w8a8", "zeroq", images="procedual", **QUICK)


@pytest.fixture
def pictures(tmp_path):
    """Pictures at two depths, with a label table that nobody reads."""
    folder = tmp_path / "pictures"
    (folder / "deeper").mkdir(parents=True)
    random = np.random.default_rng(0)
    for index in range(20):
        pixels = random.integers(0, 255, (12, 10), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / ("deeper" if index % 2 else ".") / f"{index:02d}.png")
    (folder / "labels.csv").write_text("file,label\n")
    return folder


def test_pictures_take_the_place_of_synthetic_images(teacher, pictures, tmp_path):
    result = quantize(
        teacher, "w4a4", "minutes", images=str(pictures), out=tmp_path / "out", **QUICK
    )
    manifest = result.manifest
    assert manifest["protocol"]["images"] == "given, 20 files"
    assert manifest["phases"][0]["name"] == "classifying given images"
    assert manifest["method"]["images"]["kind"] == "pictures"
    assert "rows" not in manifest["method"]["images"]
    report = (tmp_path / "out" / "report.html").read_text()
    assert "given, 20 files" in report
    assert "Not one real image" not in report


def test_a_picture_that_cannot_be_read_is_named_before_anything_is_learned(teacher, pictures):
    (pictures / "deeper" / "03.png").write_bytes(b"no picture")
    with pytest.raises(DataError) as error:
        quantize(teacher, "w4a4", "minutes", images=str(pictures), **QUICK)
    assert "03.png" in str(error.value)


def test_features_of_an_npz_serve_too(teacher, tmp_path):
    np.savez(tmp_path / "given.npz", images=np.zeros((9, 8, 8), np.uint8))
    result = quantize(teacher, "w8a8", "zeroq", images=str(tmp_path / "given.npz"), **QUICK)
    assert result.manifest["protocol"]["images"] == "given, 9 files"


def test_an_empty_folder_is_refused(teacher, tmp_path):
    with pytest.raises(DataError, match="no images here"):
        quantize(teacher, "w8a8", "zeroq", images=str(tmp_path), **QUICK)
