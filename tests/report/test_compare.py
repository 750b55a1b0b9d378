"""Several results are ranked only if their protocols are equal."""

from __future__ import annotations

import json
import shutil

from dreamquant.report.compare import different, render_comparison
from dreamquant.report.read import read_record


def test_results_of_different_protocols_are_not_ranked_and_the_differences_named(folder, synthetic):
    html = render_comparison([read_record(folder), read_record(synthetic)])
    assert "Not ranked:" in html
    for difference in ("bits", "measure", "test images"):
        assert f'<th scope="row">{difference}</th>' in html
    assert "seed</th>" not in html
    assert "best first" not in html
    assert html.index(str(folder)) < html.index(str(synthetic))


def test_results_of_one_protocol_are_ranked(folder, tmp_path):
    better = tmp_path / "better"
    shutil.copytree(folder, better)
    manifest = json.loads((better / "manifest.json").read_text())
    manifest["accuracy"]["student"] |= {"top1": 99.0, "ci95": [98.0, 99.5]}
    (better / "manifest.json").write_text(json.dumps(manifest))
    html = render_comparison([read_record(folder), read_record(better)])
    assert "ranked by accuracy, best first" in html
    assert "more than their intervals explain by chance" in html
    assert html.index(str(better)) < html.index(str(folder))
    again = render_comparison([read_record(folder), read_record(folder)])
    assert "it is not certain which of them is better" in again


def test_differences_are_by_name_and_value():
    assert different([{"seed": 0, "bits": "w4a4"}, {"seed": 1, "bits": "w4a4"}]) == {"seed": [0, 1]}
    assert different([{"new": 1}, {}]) == {"new": [1, None]}
