"""Agreement that says little, because the network gives nearly all probe images one class."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import dreamquant
from dreamquant.cli.tables import evaluation_table, result_table
from dreamquant.errors import SchemeError
from dreamquant.evaluation.data import open_images
from dreamquant.networks import demo
from dreamquant.report.read import read_record
from dreamquant.report.render import render
from tiny_runs import blind_classifier

SAYS_LITTLE = "always gives the same answer would agree on 9"
QUICK = {"device": "cpu", "precision": "32", "quiet": True}


@pytest.fixture(scope="module")
def unlabelled(tmp_path_factory):
    """Digits without labels, of which fewer than nine in ten are taken for a zero."""
    found = open_images(demo.HELD_OUT, demo.INPUT)
    pixels = torch.cat(list(found.batches(100))) * demo.INPUT.std[0] + demo.INPUT.mean[0]
    path = tmp_path_factory.mktemp("digits") / "digits.npz"
    np.savez(path, images=(255 * pixels[:, 0]).round().byte().numpy())
    return path


def test_it_is_said_in_manifest_terminal_and_report(tmp_path, capsys) -> None:
    out = tmp_path / "out"
    result = dreamquant.quantize(blind_classifier(), "w8a8", "squant", out=out, **QUICK)
    assert result.manifest["agreement"]["percent"] > 99
    assert SAYS_LITTLE in result.manifest["agreement"]["remark"]["what"]
    result_table(result, out)
    printed = " ".join(capsys.readouterr().out.split())
    assert f"warning: agreement says little here: a network that {SAYS_LITTLE}" in printed
    page = " ".join(render(read_record(out)).split())
    assert SAYS_LITTLE in page
    assert "The sensitivity of layers says little here" in page


@pytest.mark.parametrize("labelled", [False, True])
def test_images_of_the_networks_own_kind_are_the_remedy(labelled, unlabelled) -> None:
    data = demo.HELD_OUT if labelled else unlabelled
    result = dreamquant.quantize(blind_classifier(), "w8a8", "squant", data=data, **QUICK)
    assert "remark" not in result.manifest["agreement"]


def test_a_network_that_sees_classes_is_without_remark() -> None:
    result = dreamquant.quantize(demo.teacher(), "w8a8", "squant", **QUICK)
    assert "remark" not in result.manifest["agreement"]


def test_given_images_of_one_class_are_remarked_on(unlabelled, tmp_path, capsys) -> None:
    dark = tmp_path / "dark.npz"
    np.savez(dark, images=np.zeros((5, 8, 8), dtype=np.uint8))
    result = dreamquant.quantize(demo.teacher(), "w8a8", "squant", data=dark, **QUICK)
    assert "100.0 % of 5 images given" in result.manifest["agreement"]["remark"]["what"]
    evaluation_table(result.evaluate(dark), "a result")
    evaluation_table(result.evaluate(unlabelled), "a result")
    printed = " ".join(capsys.readouterr().out.split())
    assert printed.count("would agree on 100.0 % of 5 images") == 1
    assert printed.count("says little") == 1


def test_bits_are_not_chosen_by_it() -> None:
    with pytest.raises(SchemeError, match=SAYS_LITTLE) as refused:
        dreamquant.quantize(blind_classifier(), "auto", "squant", max_drop="5", **QUICK)
    assert "--size" in refused.value.remedy
    dreamquant.quantize(blind_classifier(), "auto", "squant", size="60kB", **QUICK)
