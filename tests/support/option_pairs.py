"""Every two values of the options of ``dreamquant quantize`` together, on a network of a second.

Options and their choices are read from the command line itself; values of the others stand in
``VALUES``. Options that need each other are one factor. What is refused stands in ``REFUSED``: each
of these is tried by itself, and covering rows do without them, so that no refusal hides another.
Compiling a network takes long and changes nothing of what options ask for: the option is given, and
the compiler is run where it is asked for.
"""

from __future__ import annotations

import contextlib
import io
import random
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations, product
from pathlib import Path
from typing import Any, get_args
from unittest import mock

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from dreamquant.cli.main import app, main
from dreamquant.jobs.job import Job
from dreamquant.networks.spec import InputSpec
from dreamquant.synthesis.dead_leaves import DeadLeaves
from dreamquant.synthesis.procedural import drawn_inputs

Words = tuple[str, ...]
Row = Mapping[str, Words]
EVERYWHERE = {"NETWORK", "--out", "*"}
# Values of options that are no choices and no switches, "" where the option is left out. DIR is a
# folder that holds what :func:`prepare` writes.
VALUES: dict[str, tuple[str, ...]] = {
    "--weights": ("DIR/net.safetensors",),
    "--input": ("", "3x8x8"),
    "--mean": ("", "0.5,0.4,0.3"),
    "--std": ("", "0.25,0.2,0.2"),
    "--classes": ("", "5"),
    "--seed": ("", "3"),
    "--threads": ("", "1"),
    "--data": ("", "DIR/images.npz"),
    "--micro-batches": ("", "2"),
    "--method": ("adadfq", "auto", "squant", "nagel", "minutes", "qdrop", "zeroq", "adadfq+ris"),
    "--first-last": ("", "8"),
    "--override": ("", "3=w8a8"),
    "--preset": ("", "paper"),
}
# Options that need or exclude each other.
TOGETHER: dict[str, tuple[Words, ...]] = {
    "--iterations": (("--iterations", "2"), ("--budget", "2s")),
    "--budget": (),
    "--bits": (
        ("--bits", "w4a4"),
        ("--bits", "w8a8"),
        ("--bits", "auto", "--size", "1KB"),
        ("--bits", "auto", "--max-drop", "5"),
    ),
    "--size": (),
    "--max-drop": (),
    "--placement": (
        (),
        ("--placement", "relu-output"),
        ("--placement", "layer-input"),
        ("--placement", "layer-input", "--elementwise", "8"),
        ("--placement", "operands", "--softmax", "log2"),
        ("--placement", "operands", "--softmax", "linear", "--elementwise", "8"),
    ),
    "--elementwise": (),
    "--softmax": (),
    "--images": (
        (),
        ("--images", "procedural"),
        ("--images", "DIR/pictures"),
        ("--images", "DIR/pictures", "--select", "0.5"),
    ),
    "--select": (),
}
_OTHER_TASKS = ("--task multi-label", "--task regression")
_LEARN = ("--method adadfq", "--method adadfq+ris")
_SELECTED = "--images DIR/pictures --select 0.5"
_IMAGES = ("--images procedural", "--images DIR/pictures", _SELECTED)
_NO_IMAGES = ("--method auto", "--method squant", "--method nagel")
_STORED = (
    "--placement layer-input --elementwise 8",
    "--placement operands --softmax linear --elementwise 8",
    "--scheme integer",
)
# What is refused in words before a run begins.
REFUSED: tuple[tuple[str, ...], ...] = (
    ("--task segmentation",),
    *product(_IMAGES, (*_LEARN, *_NO_IMAGES)),
    *product(_OTHER_TASKS, ("--diagnostics", _SELECTED, *_LEARN)),
    ("--select 0.5",),
    ("--images procedural --select 0.5", "--method minutes"),
    *product(("--batch-norm re-estimated",), _NO_IMAGES),
    *product(("--features",), ("--bgr",)),
    *product(("--preset paper",), ("--method auto", "--method minutes")),
    *product(("--method qdrop",), _STORED),
    *product(("--data DIR/images.npz",), ("--task multi-label",)),
)


def factors() -> dict[str, tuple[Words, ...]]:
    """The words of each value of each factor, as the command line has them today."""
    found = {each.name: _words(each) for each in app["quantize"].assemble_argument_collection()}
    return {name: values for name, values in found.items() if values}


def _words(argument: Any) -> tuple[Words, ...]:
    name, hint = argument.name, argument.hint
    if name in EVERYWHERE or name in TOGETHER:
        return TOGETHER.get(name, ())
    choices = [c for one in (hint, *get_args(hint)) for c in get_args(one) if isinstance(c, str)]
    if choices:
        return ((), *((name, choice) for choice in dict.fromkeys(choices) if choice != "cuda"))
    if bool in (hint, *get_args(hint)):
        return ((), (name,), *((negative,) for negative in argument.negatives))
    return tuple((name, value) if value else () for value in VALUES[name])


def covering(seed: int = 0) -> list[dict[str, Words]]:
    """Rows in which every two values meet that may: greedy, the same every time."""
    options, draw = factors(), random.Random(seed)
    missing = set(missing_at_first())
    rows: list[dict[str, Words]] = []
    while missing:
        row = dict(min(missing))
        for name in draw.sample(list(options), len(options)):
            row.setdefault(name, _best(name, options[name], row, missing))
        missing -= {_pair(*two) for two in combinations(row.items(), 2)}
        rows.append(row)
    return rows


Value = tuple[str, Words]
Pair = tuple[Value, Value]


def _best(name: str, values: tuple[Words, ...], row: Row, missing: set[Pair]) -> Words:
    """Of the values that may join a row, the one that covers most."""
    allowed = [value for value in values if not refused({**row, name: value})]

    def covered(value: Words) -> int:
        return sum(_pair((name, value), each) in missing for each in row.items())

    return max(allowed, key=covered)


def _pair(one: Value, other: Value) -> Pair:
    return (one, other) if one < other else (other, one)


def missing_at_first() -> Iterator[Pair]:
    """Every two values of two options that may meet."""
    options = factors()
    for (one, values), (other, others) in combinations(sorted(options.items()), 2):
        for value, second in product(values, others):
            if not refused({one: value, other: second}):
                yield (one, value), (other, second)


def refused(row: Row) -> bool:
    """Whether it holds what is known to be refused."""
    given = {" ".join(words) for words in row.values()}
    return any(given.issuperset(known) for known in REFUSED)


@dataclass(frozen=True)
class Outcome:
    """What became of a command.

    Attributes:
        words: of it.
        outcome: ``ok``; ``refused`` before the run, by a message that names an option given; or
            ``fault``, which is anything else.
        text: what it said.
    """

    words: Words
    outcome: str
    text: str


_NET = """
from torch import nn

CLASSES, INPUT, MEAN, STD = 5, (3, 8, 8), [0.5, 0.4, 0.3], [0.25, 0.2, 0.2]


def make():
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU(),
        nn.Conv2d(6, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, CLASSES),
    )
"""


def prepare(folder: Path) -> None:
    """Write the network, its weights and the images that commands name."""
    (folder / "net.py").write_text(_NET)
    names: dict[str, Any] = {}
    exec(_NET, names)
    torch.manual_seed(0)
    network: nn.Sequential = names["make"]().train()
    for _ in range(3):
        network(torch.randn(16, 3, 8, 8))
    _tell_apart(network.eval())
    save_file(network.state_dict(), folder / "net.safetensors")
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), np.uint8)
    np.savez(folder / "images.npz", images=images, labels=np.arange(20) % 5)
    (folder / "pictures").mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / "pictures" / f"{number}.png")


@torch.no_grad()
def _tell_apart(network: nn.Sequential) -> None:
    """Centre the logits, so that the classes of images differ: else agreement says nothing."""
    spec = InputSpec((3, 8, 8), (0.5, 0.4, 0.3), (0.25, 0.2, 0.2), 5)
    images = drawn_inputs(DeadLeaves(), 64, spec, torch.Generator().manual_seed(0))
    network[-1].bias -= network(images).mean(0)


def tried(row: Row, folder: Path, out: Path, *, compiler: bool = False) -> Outcome:
    """Run a row in this process.

    Args:
        row: words of each option.
        folder: that :func:`prepare` filled.
        out: for the result; not there yet.
        compiler: whether ``--compile`` runs PyTorch's compiler.
    """
    words = tuple(word.replace("DIR", str(folder)) for value in row.values() for word in value)
    begun, said = [], io.StringIO()
    run = Job._run_phases

    def noted(self: Job, *arguments: Any) -> None:
        begun.append(True)
        run(self, *arguments)

    with (
        mock.patch.object(Job, "_run_phases", noted),
        contextlib.nullcontext()
        if compiler
        else mock.patch("torch.compile", lambda graph, **_: graph),
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(said),
    ):
        try:
            main(["quantize", f"{folder / 'net.py'}:make", *words, "--out", str(out)])
            code: object = 0
        except SystemExit as end:
            code = end.code
        except Exception:  # what this looks for
            return Outcome(words, "fault", traceback.format_exc()[-2000:])
    text = said.getvalue()
    if not code:
        return Outcome(words, "ok", text)
    refusal = text[text.find("error: ") :]
    named = any(word in refusal for word in words)
    outcome = "refused" if code == 2 and named and not begun else "fault"
    return Outcome(words, outcome, refusal)
