"""Command lines in README and docs are valid, and those in the README run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from dreamquant.cli.main import app, main
from printed_commands import OTHERS, ROOT, Printed, known_options, printed

EVERY = list(printed())
FACTORY = """
from torch import nn


def factory():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(4),
        nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10),
    )
"""


def test_there_are_command_lines() -> None:
    assert len(EVERY) > 20
    assert {each.page for each in EVERY} > {"README.md", "docs/guide/images.md"}


@pytest.mark.parametrize("command", EVERY, ids=lambda each: f"{each.page}: {each.line[:60]}")
def test_every_command_line_is_understood(command: Printed) -> None:
    called, bound, *_ = app.parse_args(command.words, exit_on_error=False, print_error=False)
    assert called is app[command.words[0]].default_command
    assert bool(bound.arguments) == (len(command.words) > 1)


@pytest.mark.parametrize("page", ["README.md", *sorted(map(str, ROOT.glob("docs/**/*.md")))])
def test_every_option_that_a_page_names_is_one(page: str) -> None:
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", (ROOT / page).read_text()))
    benchmarks = {
        option
        for script in (ROOT / "benchmarks").glob("*.py")
        for option in re.findall(r'"(--[a-z-]+)"', script.read_text())
    }
    assert named <= known_options() | OTHERS | benchmarks


@pytest.fixture
def users_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the README's lines name: a small network of each kind, its weights, images."""
    onnx_export = pytest.importorskip("onnxscript") and torch.onnx.export
    torch.manual_seed(0)
    (tmp_path / "path" / "to").mkdir(parents=True)
    (tmp_path / "path" / "to" / "file.py").write_text(FACTORY)
    names: dict[str, object] = {}
    exec(FACTORY, names)
    network: nn.Module = names["factory"]()  # type: ignore[operator]
    for _ in range(3):
        network(torch.randn(16, 3, 32, 32))
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    example = (torch.zeros(1, 3, 32, 32),)
    onnx_export(network.eval(), example, tmp_path / "model.onnx", dynamo=True, verbose=False)
    pixels = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), np.uint8)
    np.savez(tmp_path / "test.npz", images=pixels, labels=np.arange(20) % 10)
    for name in ("photo.jpg", "other.png"):
        Image.fromarray(pixels[0]).save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


# What fetches a network or trains for minutes is understood, above, and not run.
RUN = [
    each
    for each in EVERY
    if each.page == "README.md" and "…" not in each.line and "torchvision:" not in each.line
]


@pytest.mark.filterwarnings("ignore")
def test_the_readmes_lines_run_as_printed(
    users_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxruntime")
    assert [shlex.split(each.line)[1] for each in RUN] == [
        *("quantize", "quantize", "export", "evaluate", "predict", "benchmark")
    ]
    for each in RUN:
        with pytest.raises(SystemExit) as end:
            main(list(each.words))
        assert not end.value.code, (each.line, capsys.readouterr().err)
    assert (users_folder / "out" / "onnx" / "student.safetensors").is_file()
    assert "times as fast as float32" in capsys.readouterr().out
