from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from dreamquant.errors import NetworkError
from dreamquant.networks.load import load_network
from dreamquant.networks.user_file import names_user_file, read_user_file

GREY = {"shape": (1, 8, 8), "mean": (0.5,), "std": (0.25,)}
BLOCK = "from torch import nn\ndef head(n): return nn.Sequential(nn.Flatten(), nn.Linear(64, n))\n"
USE = "def net(classes=5): return head(classes)\n"


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def classes(name: str) -> int:
    return load_network(name, **GREY).input.num_classes  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("file", "statement", "beside"),
    [
        ("net.py", "from blocks import head", {"blocks.py": BLOCK}),
        ("net.py", "from .blocks import head", {"blocks.py": BLOCK}),
        ("pkg/net.py", "from .blocks import head", {"pkg/blocks.py": BLOCK}),
        (
            "pkg/net.py",
            "from .blocks import head",
            {"pkg/__init__.py": "", "pkg/blocks.py": BLOCK},
        ),
        (
            "pkg/models/net.py",
            "from ..blocks import head",
            {"pkg/__init__.py": "", "pkg/models/__init__.py": "", "pkg/blocks.py": BLOCK},
        ),
        ("pkg/models/net.py", "from models.blocks import head", {"pkg/models/blocks.py": BLOCK}),
        ("src/nets/a/net.py", "import shared_; head = shared_.head", {"src/shared_.py": BLOCK}),
    ],
)
def test_imports_beside_and_above_the_file(
    tmp_path: Path, file: str, statement: str, beside: dict[str, str]
) -> None:
    path, meta = list(sys.path), list(sys.meta_path)
    write(tmp_path, {file: f"{statement}\n{USE}", **beside})
    assert classes(f"{tmp_path / file}:net") == 5
    assert (sys.path, sys.meta_path) == (path, meta)
    assert not list(tmp_path.rglob("__pycache__"))


def test_equal_names_in_two_folders_are_two_modules(tmp_path: Path) -> None:
    for folder, count in (("a", 5), ("b", 6)):
        text = "from blocks import N, head\ndef net(): return head(N)\n"
        write(tmp_path / folder, {"net.py": text, "blocks.py": f"{BLOCK}N = {count}\n"})
    assert [classes(f"{tmp_path}/{folder}/net.py:net") for folder in "aba"] == [5, 6, 5]


def test_an_import_while_the_network_is_built(tmp_path: Path) -> None:
    text = "def net():\n    from blocks import head\n    return head(5)\n"
    write(tmp_path, {"net.py": text, "blocks.py": BLOCK})
    assert classes(f"{tmp_path}/net.py:net") == 5


def test_a_missing_import_is_named_and_the_remedy_works(tmp_path: Path) -> None:
    write(tmp_path, {"net.py": f"from nosuch_ import head\n{USE}"})
    with pytest.raises(NetworkError, match="ModuleNotFoundError") as e:
        classes(f"{tmp_path}/net.py:net")
    assert e.value.remedy == "install nosuch_, or put its file beside this one"
    write(tmp_path, {"nosuch_.py": BLOCK})
    assert classes(f"{tmp_path}/net.py:net") == 5


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [("", 5), ("()", 5), ("(6)", 6), ("(classes=7)", 7), ("(classes={'n': 8}['n'])", None)],
)
def test_literal_arguments(tmp_path: Path, arguments: str, wanted: int | None) -> None:
    write(tmp_path, {"blocks.py": BLOCK, "net.py": f"from blocks import head\n{USE}"})
    name = f"{tmp_path}/net.py:net{arguments}"
    if wanted is None:
        with pytest.raises(NetworkError, match="are not literals"):
            classes(name)
    else:
        assert classes(name) == wanted


@pytest.mark.parametrize(
    "arguments", ["(__import__('os'))", "(*[1])", "(**{'a': 1})", "()()", "(a", "(1)+(2)"]
)
def test_no_code_in_arguments_runs(tmp_path: Path, arguments: str) -> None:
    write(tmp_path, {"net.py": "def net(*_, **__): raise AssertionError\n"})
    with pytest.raises(NetworkError) as e:
        load_network(f"{tmp_path}/net.py:net{arguments}")
    assert "AssertionError" not in str(e.value)


def test_arguments_that_lack_are_asked_for_and_the_remedy_works(tmp_path: Path) -> None:
    text = "from blocks import head\nclass Net:\n    def __new__(cls, n, width=1): return head(n)\n"
    write(tmp_path, {"blocks.py": BLOCK, "net.py": text})
    with pytest.raises(NetworkError, match="missing") as e:
        classes(f"{tmp_path}/net.py:Net")
    assert "net.py:Net(n=…)" in e.value.remedy
    assert classes(f"{tmp_path}/net.py:Net(n=6)") == 6


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("net.py:make", True),
        (r"C:\nets\net.py:make", True),
        ("net.py:make(a='x.py:y')", True),
        ("a (1)/net.py:make(2)", True),
        ("net.py:", False),
        ("net.py", False),
        ("a:b:c", False),
        ("net.py:1a", False),
    ],
)
def test_the_form_of_a_name(text: str, is_one: bool) -> None:
    assert names_user_file(text) is is_one


def test_a_name_is_taken_apart(tmp_path: Path) -> None:
    write(tmp_path, {"a.py": ""})
    file = read_user_file(f"{tmp_path}/a.py:Net('x.py:y', scale=[0.5])", NetworkError)
    assert (file.path, file.name) == (tmp_path / "a.py", "Net")
    assert (file.positional, file.named) == (("x.py:y",), {"scale": [0.5]})


@pytest.mark.parametrize(
    ("defined", "shape"),
    [
        ("INPUT = (1, 8, 8)", (1, 8, 8)),
        ("SIZE = 8", (1, 8, 8)),
        ("SIZE = (8, 8)", (1, 8, 8)),
        ("SIZE = (1, 8, 8)", (1, 8, 8)),
        ("INPUT = (8, 8)", (8, 8)),
    ],
)
def test_the_file_tells_its_input(tmp_path: Path, defined: str, shape: tuple[int, ...]) -> None:
    text = (
        f"from blocks import head\n{USE}{defined}\nMEAN, STD = [0.5], 0.25\nCLASSES = list('abcde')"
    )
    write(tmp_path, {"blocks.py": BLOCK, "net.py": text})
    network = load_network(f"{tmp_path}/net.py:net")
    assert (network.input.shape, network.input.mean, network.input.std) == (shape, (0.5,), (0.25,))
    assert network.input.class_names == tuple("abcde")
    assert network.input_source == "net.py"
    other = load_network(f"{tmp_path}/net.py:net", std=(2.0,))
    assert other.input.std == (2.0,)
    assert other.input_source == "net.py; --std from options"
    assert network.notes == ()
    assert other.notes == ("--std is used as given, although net.py says 0.25",)


def test_a_feature_map_without_an_axis_of_channels(tmp_path: Path) -> None:
    text = (
        "from torch import nn\nSIZE, MEAN, STD = (4, 6), [0.0], [1.0]\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n        super().__init__(); self.fc = nn.Linear(6, 3)\n"
        "    def forward(self, x):\n        b, t, f = x.shape; return self.fc(x).mean(1)\n"
    )
    write(tmp_path, {"net.py": text})
    assert load_network(f"{tmp_path}/net.py:Net").input.shape == (4, 6)


def test_a_count_of_classes_in_the_file_is_checked(tmp_path: Path) -> None:
    write(tmp_path, {"blocks.py": BLOCK, "net.py": f"from blocks import head\n{USE}CLASSES = 9\n"})
    with pytest.raises(NetworkError, match="has 5 classes, not 9"):
        classes(f"{tmp_path}/net.py:net")


def test_a_module_in_a_file_is_taken_as_it_is(tmp_path: Path) -> None:
    write(tmp_path, {"blocks.py": BLOCK, "net.py": "from blocks import head\nnet = head(5)\n"})
    assert classes(f"{tmp_path}/net.py:net") == 5


def test_torch_is_not_hidden_by_a_folder_above(tmp_path: Path) -> None:
    write(
        tmp_path,
        {"torch/x.py": "", "a/blocks.py": BLOCK, "a/net.py": f"from blocks import head\n{USE}"},
    )
    assert classes(f"{tmp_path}/a/net.py:net") == 5
    assert sys.modules["torch"] is torch
