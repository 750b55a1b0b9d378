"""Content of the page of one result."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from dreamquant.errors import ResultError
from dreamquant.report.compare import render_comparison
from dreamquant.report.read import read_record
from dreamquant.report.render import render

VOID = {"meta", "img", "br", "link"}


class Page(HTMLParser):
    """Checks that tags are closed in order, and collects addresses, ids and text."""

    def __init__(self, html):
        super().__init__()
        self.open, self.addresses, self.ids, self.words, self.headings = [], [], [], [], []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.addresses += [given[name] for name in ("src", "href") if name in given]
        self.ids += [given["id"]] if "id" in given else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"style", "script"} & set(self.open):
            self.words.append(data)
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def page(folder):
    return Page(render(read_record(folder)))


def test_it_has_all_that_was_promised(page):
    assert page.headings == [
        "What to know before trusting it",
        "Protocol",
        "Synthetic images",
        "How it learned",
        "Layer by layer",
        "Histograms on their integer grids",
        "Changed answers",
        "How to repeat it",
    ]


def test_it_is_one_small_file_that_needs_no_network(folder, page):
    html = (folder / "report.html").read_text("utf-8")
    assert html == render(read_record(folder))
    assert len(html.encode()) < 5_000_000
    assert all(address.startswith(("#", "data:image/")) for address in page.addresses)
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|@import|url\((?!#)", html)
    assert len(page.ids) == len(set(page.ids))
    wanted = {address[1:] for address in page.addresses if address.startswith("#")}
    assert wanted <= set(page.ids)


def test_its_headline_is_the_manifests(folder, page):
    manifest = json.loads((folder / "manifest.json").read_text())
    for who in ("teacher", "ranges_only", "student"):
        measured = manifest["accuracy"][who]
        assert f"{measured['top1']:.2f}" in page.text
        assert " – ".join(f"{end:.2f}" for end in measured["ci95"]) in page.text
    assert f"{manifest['agreement']['percent']:.2f} %" in page.text
    assert "It names the right class for" in page.text


def test_text_from_a_result_is_never_markup(page):
    assert "<b>dog</b>" in page.text


@pytest.mark.parametrize("which", ["unlabelled", "synthetic"])
def test_without_labels_agreement_is_never_called_accuracy(which, request):
    folder = request.getfixturevalue(which)
    text = Page(render(read_record(folder))).text
    assert "this is agreement with the original and not an accuracy" in text
    assert "No number here is an accuracy" in text
    assert "accuracy" not in text.replace("an accuracy", "")
    assert "rounded only, nothing learned" in text
    on = "512 probe images (dead leaves)" if which == "synthetic" else "60 images"
    assert f"% of {on}" in text


def test_a_network_that_was_only_distilled_has_a_report_without_layers(distilled):
    page = Page(render(read_record(distilled)))
    assert "Layer by layer" not in page.headings
    assert "in full precision" in page.text
    assert "another, trained without data" in page.text
    assert "dreamquant distill" in page.text
    assert "--student" in page.text
    assert "quantized, recovered" not in page.text
    assert "float32" in render_comparison([read_record(distilled), read_record(distilled)])


def test_a_result_of_an_older_version_is_shown_as_far_as_it_goes(copied):
    (copied / "analysis.json").unlink()
    manifest = json.loads((copied / "manifest.json").read_text())
    del manifest["agreement"]["ci95"]
    (copied / "manifest.json").write_text(json.dumps(manifest))
    page = Page(render(read_record(copied)))
    assert "Layer by layer" not in page.headings
    assert "by a version that did not analyse layers" in page.text


def test_pictures_of_diagnostics_are_embedded(copied):
    (copied / "diagnostics.png").write_bytes((copied / "samples.png").read_bytes())
    changes = {"views": {"prediction": 0.25}, "weights": {"prediction": 0.5}}
    found = {
        "adaptability": {"below": 0.1, "within": 0.7, "above": 0.2},
        "attention": {"synthetic": {"mode_gap": 0.0125}, "real": None},
        "inconsistency": {"noise": changes, "synthetic": changes, "real": None},
    }
    (copied / "diagnostics.json").write_text(json.dumps(found))
    page = Page(render(read_record(copied)))
    assert "Diagnostics of the method" in page.headings
    assert "70 % are within its band, 10 % too hard and 20 % too easy" in page.text
    assert "0.0125 for synthetic images" in page.text
    assert "noise images 0.25 when altered and 0.5 with noise on the weights" in page.text
    assert sum(address.startswith("data:image/png") for address in page.addresses) == 41


def test_large_pictures_of_diagnostics_are_made_smaller(copied):
    random = np.random.default_rng(0)
    noise = random.integers(0, 256, (900, 1700, 3), dtype=np.uint8)
    Image.fromarray(noise).save(copied / "diagnostics.png")
    assert (copied / "diagnostics.png").stat().st_size > 4_000_000
    html = render(read_record(copied))
    assert "data:image/webp;base64," in html
    assert len(html.encode()) < 5_000_000


def test_a_network_of_a_thousand_layers_stays_below_the_limit(copied):
    analysis = json.loads((copied / "analysis.json").read_text())
    analysis["sites"] *= 200
    (copied / "analysis.json").write_text(json.dumps(analysis))
    html = render(read_record(copied))
    assert len(analysis["sites"]) == 1000
    assert len(html.encode()) < 5_000_000
    assert "The 450 least sensitive places are left out." in Page(html).text


def test_damaged_diagnostics_are_named(copied):
    (copied / "diagnostics.png").write_bytes(b"no picture" * 200_000)
    with pytest.raises(ResultError, match="its record is damaged"):
        read_record(copied)


@pytest.mark.parametrize("section", ["accuracy", "coverage", "protocol", "hardware", "network"])
def test_a_damaged_manifest_is_named(section, copied):
    manifest = json.loads((copied / "manifest.json").read_text())
    for damaged in ({}, [], None, 7):
        (copied / "manifest.json").write_text(json.dumps(manifest | {section: damaged}))
        with pytest.raises(ResultError, match="its record is damaged") as e:
            render(read_record(copied))
        assert str(copied) in e.value.where


def test_an_absurd_grid_is_damage_and_not_an_endless_drawing(copied):
    analysis = json.loads((copied / "analysis.json").read_text())
    analysis["sites"][0]["qmax"] = 10**30
    (copied / "analysis.json").write_text(json.dumps(analysis))
    with pytest.raises(ResultError, match="are no grid"):
        render(read_record(copied))


def test_sites_without_figures_are_shown_as_dashes(copied):
    analysis = json.loads((copied / "analysis.json").read_text())
    for site in analysis["sites"]:
        site |= {"alone": None, "sqnr": None, "low": None, "high": None}
    (copied / "analysis.json").write_text(json.dumps(analysis))
    text = Page(render(read_record(copied))).text
    assert "Measured for the 0 places" in text
