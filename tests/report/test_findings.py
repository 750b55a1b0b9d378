"""Every warning appears for a record with its cause, and none for a record without."""

from __future__ import annotations

import pytest

from dreamquant.report.findings import findings
from dreamquant.report.headline import headline


@pytest.fixture
def good(record):
    """A record that nothing can be said against."""
    manifest, analysis = record.manifest, record.analysis
    for who, top1 in (("teacher", 99.0), ("ranges_only", 60.0), ("student", 98.5)):
        manifest["accuracy"][who] |= {"top1": top1, "ci95": [top1 - 0.2, top1 + 0.2]}
    manifest["agreement"] = {"percent": 97.0, "on": "9000 images given", "ci95": [96.0, 98.0]}
    manifest["method"]["recovery"][-1]["iterations"] = 480
    manifest["diversity"]["label_entropy"] = 0.97
    manifest["coverage"]["float_multiplications"] = 0
    for layer in manifest["coverage"]["layers"]:
        layer["weight_bits"] = 8
    analysis["answers"] |= {"n": 9000}
    analysis["constant_agreement"] = 40.0
    analysis["answers"]["outcomes"] |= {"lost": 60, "gained": 10}
    for sample in analysis["samples"]:
        sample["confidence"] = 0.9
    for site in analysis["sites"]:
        site |= {"below": 0.0, "above": 0.01, "alone": {"agreement": 99.0}}
    return record


def said(record):
    return [(one.level, one.what) for one in findings(record, headline(record))]


def test_a_good_result_has_no_warning(good):
    assert said(good) == [
        ("note", "This is one run with one seed; another seed gives another result.")
    ]


def damage(record, *path_and_value):
    *path, key, value = path_and_value
    place = {"manifest": record.manifest, "analysis": record.analysis}
    for step in path:
        place = place[step]
    place[key] = value


@pytest.mark.parametrize(
    ("change", "level", "words"),
    [
        (("analysis", "answers", "outcomes", "lost", 900), "warning", "lost 9.9 points"),
        (("manifest", "agreement", "percent", 70.0), "warning", "is only 70.0 % on 9000 images"),
        (
            ("manifest", "accuracy", "student", {"top1": 55.0, "ci95": [54, 56]}),
            "warning",
            "a worse result than rounding alone, by 5.0 points",
        ),
        (
            ("manifest", "method", "recovery", -1, "iterations", 80),
            "warning",
            "learned for only 80 batches",
        ),
        (
            ("manifest", "timings", "ended_early", "as asked"),
            "note",
            "ended early, as asked: this is the best student after",
        ),
        (
            ("manifest", "agreement", "remark", {"what": "it says little", "remedy": "look"}),
            "warning",
            "It says little.",
        ),
        (
            ("analysis", "constant_agreement", 99.0),
            "note",
            "would agree on 99.0 % of probe images.",
        ),
        (("manifest", "diversity", "label_entropy", 0.4), "warning", "balance of classes is 40 %"),
        (
            ("manifest", "coverage", "float_multiplications", 10**9),
            "warning",
            " % of the multiplications and 0.0 % of the weights run in float: ",
        ),
        (("analysis", "sites", 1, "above", 0.3), "warning", "30.0 % of the values at the ReLU"),
        (
            ("analysis", "sites", 0, "alone", {"agreement": 60.0}),
            "warning",
            "Rounding only the weights of layer 0 reduces the agreement",
        ),
        (
            ("manifest", "coverage", "layers", 0, "weight_bits", 4),
            "note",
            "The first and the last layer have 4 and 8 bits.",
        ),
        (("manifest", "agreement", "on", "60 images given"), "note", "60 images are few"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_is_said_when_it_is_so(good, change, level, words):
    damage(good, *change)
    found = [what for found_level, what in said(good) if found_level == level]
    assert any(words in what for what in found), found


def test_doubtful_images_warn_unless_recovery_worked_all_the_same(good):
    for sample in good.analysis["samples"]:
        sample["confidence"] = 0.2
    words = "these classes a probability of 20 % on average"
    assert any(level == "note" and words in what for level, what in said(good))
    good.manifest["accuracy"]["student"] |= {"top1": 62.0, "ci95": [61, 63]}
    assert any(level == "warning" and words in what for level, what in said(good))


def test_warnings_come_first(good):
    damage(good, "manifest", "agreement", "on", "60 images given")
    damage(good, "analysis", "sites", 1, "above", 0.3)
    levels = [level for level, _ in said(good)]
    assert levels == sorted(levels, reverse=True)
