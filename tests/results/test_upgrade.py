"""Results of schema 1 are opened, measured, shown and repeated like current ones."""

from __future__ import annotations

import json
import shlex

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from dreamquant.cli import main as cli
from dreamquant.errors import ResultError
from dreamquant.networks.load import load_network
from dreamquant.networks.spec import InputSpec
from dreamquant.quantization.convert import quantize_network
from dreamquant.quantization.scheme import Bits, Scheme
from dreamquant.report.read import read_record
from dreamquant.report.render import render
from dreamquant.report.wording import command
from dreamquant.results.describe import describe_network
from dreamquant.results.manifest import MANIFEST, read_scheme
from dreamquant.results.reopen import open_result
from dreamquant.results.result import Result
from dreamquant.results.upgrade import SCHEMA, upgraded

FILE = """
from torch import nn

def network():
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.BatchNorm2d(8),
        nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5),
    )
"""
PAPER = {"title": "T", "venue": "V", "authors": "A et al.", "confirmed": "c", "ours": "o"}
SEEN = {"top1": 25.0, "top5": 100.0, "n": 60, "ci95": [15.8, 37.2], "agreement": None}
SCHEDULE = {
    "iterations": 12,
    "batch": 32,
    "range_warmup": 4,
    "student_warmup": 5,
    "student_lr": 1e-4,
    "student_optimizer": "adam",
    "generator_lr": 1e-3,
    "decay": "cosine",
    "milestones": [],
    "lr_warmup": 1,
    "weight_decay": 1e-4,
    "momentum": 0.9,
    "clip": 5.0,
}
# As a run of ACQ with AGM was written down before there were phases, its texts cut short.
SCHEMA_1 = {
    "schema": 1,
    "method": {
        "name": "acq+agm",
        "paper": PAPER,
        "add_ons": [{"name": "agm", "paper": PAPER}],
        "preset": "quick",
        "generator_terms": [
            {"weight": 0.1, "term": "BatchNormStatistics"},
            {"weight": 3.0, "term": "PairDiversity", "cap": 1.0},
        ],
        "student_terms": [{"weight": 1.0, "term": "KnowledgeDistillation", "temperature": 20}],
        "targets": {"part": "OneHot", "copies": 2},
        "centres": {"part": "AttentionCentres", "margin": 0.2, "copies": 2},
        "mixup": {"part": "Mixup", "alpha": 1.0},
        "latent": 100,
        "schedule": SCHEDULE,
    },
    "request": {"method": "acq+agm", "data": "labelled.npz"},
    "protocol": {
        "bits": "w3a3",
        "first_last_bits": "w3a3",
        "overrides": {"3": "w8a8"},
        "placement": "relu-output",
        "weights": "affine, per output channel, learned step size, symmetric at 8 bits",
        "activations": "affine, per tensor, static, learned step size",
        "gradient": "clipped",
        "batch_norm": "float, the teacher's statistics",
        "iteration": "last",
        "teacher_sha256": "465b098c8261",
        "seed": 0,
        "training_precision": "32",
        "accumulate": 2,
    },
    "scheme": {
        "bits": {"weight": 3, "activation": 3},
        "placement": "relu-output",
        "first_last_bits": None,
        "ranges": "learned",
        "gradient": "clipped",
        "norms": "matched",
        "momentum": 0.9,
        "overrides": [["3", {"weight": 8, "activation": 8}]],
        "joins": None,
    },
    "coverage": {
        "layers": [
            {"name": name, "kind": kind, "weight_bits": 3, "input_bits": None} | counts
            for name, kind, counts in (
                ("0", "Conv2d", {"weights": 162, "channels": 6}),
                ("3", "Conv2d", {"weights": 432, "channels": 8}),
                ("8", "Linear", {"weights": 40, "channels": 5}),
            )
        ],
        "relu_outputs": [3, 3],
        "left_in_float": [],
        "weight_bytes": 508,
        "scale_bytes": 105,
        "float_bytes": 316,
        "stored": [],
    },
    "accuracy": {"teacher": SEEN, "ranges_only": SEEN, "student": SEEN | {"agreement": 90.0}},
    "agreement": {"percent": 90.0, "on": "60 images given", "ci95": [79.9, 95.3]},
    "diversity": None,
    "versions": {"python": "3.11.7", "dreamquant": "0.1.0", "torch": "2.9.0"},
    "hardware": {"device": "cpu", "cpu": "some", "cpus": 2, "threads": 1},
    "history": {
        "losses": [
            {"iteration": 10, "mixed/KnowledgeDistillation": 2e-4, "generator/PairDiversity": -0.1}
        ],
        "accuracy": [{"iteration": 5, "top1": 25.0, "n": 60}],
    },
    "timings": {"training_seconds": 6.0, "seconds": 8.0, "iterations": 12},
    "configuration": {"compiled": True, "seed": 0},
}


@pytest.fixture
def folder(tmp_path):
    """A result of that schema: its network and student are of today, its record is not."""
    torch.manual_seed(0)
    (tmp_path / "nets.py").write_text(FILE)
    namespace = {}
    exec(FILE, namespace)
    save_file(namespace["network"]().state_dict(), tmp_path / "weights.safetensors")
    network = load_network(
        f"{tmp_path / 'nets.py'}:network",
        weights=tmp_path / "weights.safetensors",
        shape=(3, 8, 8),
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
    )
    images = torch.randn(4, 3, 8, 8)
    scheme = Scheme(
        Bits(3, 3), ranges="learned", overrides=(("3", Bits(8, 8)),), weights_range="full"
    )
    student, _ = quantize_network(network.module, scheme, images)
    student.observe(True)
    student(images)
    student.fix()
    record = json.loads(json.dumps(SCHEMA_1)) | {"network": describe_network(network)}
    Result(student, record).save(tmp_path / "out")
    return tmp_path / "out"


def lifted(**changes):
    return upgraded(SCHEMA_1 | {"network": {}} | changes)


def test_it_is_opened_and_gives_the_outputs_that_it_had(folder):
    opened = open_result(folder)
    assert opened.manifest["schema"] == SCHEMA
    assert opened.summary()["iterations"] == 12
    assert read_scheme(opened.manifest, folder).weights_range == "full"
    with torch.no_grad():
        assert opened.model(torch.zeros(1, 3, 8, 8)).shape == (1, 5)


def test_it_is_measured(folder, capsys):
    images = np.zeros((6, 8, 8, 3), np.uint8)
    np.savez(folder / "images.npz", images=images, labels=np.zeros(6, np.int64))
    with pytest.raises(SystemExit) as stopped:
        cli.main(["evaluate", str(folder), "--data", str(folder / "images.npz"), "--json"])
    assert not stopped.value.code
    measured = json.loads(capsys.readouterr().out)
    assert measured["n"] == 6
    assert measured["agreement"] is not None


def test_it_is_shown(folder):
    html = render(read_record(folder))
    assert "generator warms up, 5 steps in float32; student learns, 7 steps in float32" in html
    assert "KnowledgeDistillation (student, on mixed images)" in html
    assert "each batch in 2 micro-batches" in html


def test_the_command_asks_for_it_again(folder):
    words = shlex.split(command(read_record(folder).manifest).replace("\\\n", " "))
    assert words[-1] == "out/again"
    given = " ".join(words)
    for option in (
        *("--method acq+agm", "--bits w3a3", "--preset quick", "--iterations 12", "--seed 0"),
        *("--override 3=w8a8", "--ranges learned", "--gradient clipped", "--compile"),
        *("--batch-norm re-estimated", "--weights-range full", "--micro-batches 2"),
    ):
        assert option in given


def test_its_lists_of_terms_and_its_schedule_are_parts():
    method = lifted()["method"]
    assert method["iterations"] == 12
    images, (train,) = method["images"], method["recovery"]
    assert (images["alone"], images["observe"], train["iterations"]) == (5, 4, 7)
    assert images["terms"][0] == {"weight": 0.1, "part": "BatchNormStatistics"}
    assert images["terms"][1] == {"weight": 3.0, "part": "PairDiversity", "cap": 1.0}
    assert images["condition"]["part"] == "AttentionCentres"
    assert train["terms"][0]["temperature"] == 20
    assert train["views"] == [{"part": "Mixup", "alpha": 1.0}]
    assert (images["decay"], train["decay"]) == (
        {"part": "Cosine", "rise": 0},
        {"part": "Cosine", "rise": 1},
    )


def test_milestones_are_counted_from_each_parts_first_step():
    schedule = SCHEDULE | {"decay": "steps", "milestones": [8, 10], "lr_warmup": 0}
    method = lifted(method=SCHEMA_1["method"] | {"schedule": schedule})["method"]
    assert method["images"]["decay"] == {"part": "Steps", "at": [8, 10]}
    assert method["recovery"][0]["decay"] == {"part": "Steps", "at": [3, 5]}


def test_seconds_are_shared_out_by_length():
    record = lifted()
    assert [phase["seconds"] for phase in record["phases"]] == [2.5, 3.5]
    assert record["ranges_set_at"] == 5


def test_what_later_versions_of_the_schema_wrote_is_kept():
    scheme = SCHEMA_1["scheme"] | {"weights_range": "safe", "joins": 7}
    record = lifted(scheme=scheme)
    assert (record["request"]["weights_range"], record["request"]["elementwise"]) == ("safe", 7)
    assert "norms" not in record["scheme"]


def test_what_its_first_versions_left_out_is_as_it_was_then():
    scheme = {k: v for k, v in SCHEMA_1["scheme"].items() if k not in ("norms", "joins")}
    record = {k: v for k, v in SCHEMA_1.items() if k not in ("request", "configuration")}
    told = upgraded(record | {"scheme": scheme})
    assert told["request"]["batch_norm"] == "kept"
    assert told["request"]["method"] == "acq+agm"
    assert "data" not in told["request"]
    assert told["configuration"] == {}


def test_a_distillation_has_no_scheme():
    record = lifted(scheme=None, request={"method": "adadfq", "data": None, "inherit": True})
    assert record["scheme"] is None
    assert record["request"] == {
        "command": "distill",
        "inherit": True,
        "method": "adadfq",
        "seed": 0,
        "precision": "32",
        "micro_batches": 2,
        "compile": True,
    }


def test_a_record_of_today_stays_as_it_is(folder):
    today = open_result(folder).manifest
    assert upgraded(today) == today


def test_the_first_versions_of_the_present_schema_are_completed():
    today = lifted(request={"method": "acq+agm", "data": "labelled.npz"})
    early = today | {"request": {"method": "acq+agm", "data": "labelled.npz"}}
    early["coverage"] = early["coverage"] | {"multiplications": 5, "float_multiplications": 0}
    early["method"] = {
        k: v for k, v in today["method"].items() if k not in ("iterations", "prepare")
    }
    del early["prepared"]
    completed = upgraded(early)
    assert completed["request"]["command"] == "quantize"
    assert completed["request"]["bits"] == "w3a3"
    assert completed["coverage"]["float_functions"] == []
    assert (completed["method"]["iterations"], completed["method"]["prepare"]) == (12, [])
    assert completed["prepared"] == []


def test_a_task_under_its_former_name_has_its_name_of_today(folder):
    today = open_result(folder).manifest
    former = today["network"] | {"input": today["network"]["input"] | {"task": "tensors"}}
    assert upgraded(today | {"network": former})["network"]["input"]["task"] == "regression"
    assert InputSpec((3, 8, 8), (0.0,) * 3, (1.0,) * 3, 0, task="tensors").task == "regression"


@pytest.mark.parametrize("section", ["method", "scheme", "protocol", "timings", "history"])
def test_a_damaged_one_is_named(folder, section):
    record = json.loads((folder / MANIFEST).read_text())
    del record[section]
    (folder / MANIFEST).write_text(json.dumps(record))
    with pytest.raises(ResultError, match="is damaged") as caught:
        open_result(folder)
    assert f"'{section}' is missing" in str(caught.value)
