"""What the site's own strictness does not see."""

from __future__ import annotations

from pathlib import Path

import pytest

from dreamquant.methods import METHODS

DOCS = Path(__file__).resolve().parents[1] / "docs"


@pytest.mark.parametrize("method", METHODS)
def test_a_methods_page_shows_its_file(method):
    page = (DOCS / "methods" / f"{method}.md").read_text()
    assert f'\n--8<-- "src/dreamquant/methods/{method}.py"\n' in page


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda page: page.name)
def test_every_include_is_one(page):
    lines = [line for line in page.read_text().splitlines() if "--8" in line]
    assert all(line.startswith('--8<-- "') for line in lines), lines
