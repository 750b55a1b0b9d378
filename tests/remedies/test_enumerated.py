"""Every error of the package has a remedy that a test tries; names in remedies are real."""

from __future__ import annotations

import re
import tomllib

from printed_commands import OTHERS, known_options
from remedies import ROOT, named, sites, tried, words_of_remedies

# Errors whose remedies no test can try, and why.
UNTRIED = {
    "export/compare.py:__init__": "a fault of the package: it asks for a report",
    "export/weights.py:boxed": "only results of the first versions have such weights",
    "results/manifest.py:read_manifest: schema": "another version of the package is its remedy",
    "results/pool.py:_manifest: the pool has schema": "likewise",
    "results/rehearsal.py:_stage": "its cause is not known beforehand: it names what failed",
    "synthesis/generator.py:for_any_output": "its words end up in methods/any_output.py:for_task",
    "synthesis/source.py:require_any_output": "likewise",
}


def test_every_error_has_a_remedy_that_a_test_tries() -> None:
    known = {named(name).name for name in (*tried(), *UNTRIED)}
    untried = [site.name for site in sites() if site.name not in known]
    assert untried == [], "add a Trial: raise the error, do what it advises, see that it works"
    assert len(sites()) > 250


def test_what_is_not_tried_is_not_tried() -> None:
    assert {named(name).name for name in UNTRIED}.isdisjoint(named(name).name for name in tried())


def test_options_and_extras_that_remedies_name_are_there() -> None:
    texts = words_of_remedies()
    found = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", texts))
    assert found <= known_options() | OTHERS
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    assert set(re.findall(r"dreamquant\[(\w+)\]", texts)) <= extras.keys()
