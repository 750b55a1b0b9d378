"""Checks of the documentation that the site's build does not make."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from dreamquant.methods import ADD_ONS, METHODS, find_method

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"


def method_terms():
    """The tool that writes methods' weights into their pages."""
    spec = importlib.util.spec_from_file_location("method_terms", ROOT / "tools/method_terms.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("method", METHODS)
def test_a_methods_page_shows_its_file(method):
    page = (DOCS / "methods" / f"{method}.md").read_text()
    assert f'\n--8<-- "src/dreamquant/methods/{method}.py"\n' in page


def test_the_readme_names_every_method():
    listed = (ROOT / "README.md").read_text().partition("## Methods\n")[2].partition("\n## ")[0]
    assert [name for name in (*METHODS, *ADD_ONS) if f"`{name}`" not in listed] == []


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda page: page.name)
def test_every_include_is_one(page):
    lines = [line for line in page.read_text().splitlines() if "--8" in line]
    assert all(line.startswith('--8<-- "') for line in lines), lines


@pytest.mark.parametrize("page", ["methods.md", *(f"methods/{name}.md" for name in METHODS)])
def test_weights_on_a_page_are_those_of_the_code(page):
    tool = method_terms()
    text = (DOCS / page).read_text()
    names = dict(tool.pages())[DOCS / page]
    assert tool.replaced(text, names) == text, "run python tools/method_terms.py"


def test_a_stale_page_is_found():
    tool = method_terms()
    page = tool.block(["acq"])
    stale = page.replace("30 × CentreMatching", "1 × CentreMatching")
    assert stale != page
    assert tool.replaced(stale, ["acq"]) == page


def test_the_method_in_contributing_is_one(tmp_path):
    text = (ROOT / "CONTRIBUTING.md").read_text()
    sample = text.partition("```python\n# my_method.py\n")[2].partition("```")[0]
    (tmp_path / "my_method.py").write_text(sample)
    method = find_method(f"{tmp_path / 'my_method.py'}:mine")
    assert method.resolved("quick", (3, 224, 224)).iterations == 2000
