"""Prints the SHA-256 of what short runs make, to show that a refactoring changes no result.

    python tools/hashes.py > before
    python tools/hashes.py --checkout ../older > after
    diff before after

Each run is a command of its own, on one thread, with the package of the checkout that is named: the
one that holds this file, unless ``--checkout`` names another. Hashes compare on one machine only.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

# Starts the command line of any checkout, wherever that keeps its entry point.
_ENTRY = """
try:
    from dreamquant.cli.main import main
except ImportError:
    from dreamquant.cli import main
main()
"""
_INPUT = ("--input", "3x16x16", "--mean", "0.5,0.5,0.5", "--std", "0.25,0.25,0.25")
# Everything that a method or a preset might choose otherwise in another checkout. Older ones know
# only the earlier names --norms and --joins, which newer ones still take.
_PINNED = (
    *("--precision", "32", "--seed", "0", "--device", "cpu", "--threads", "1"),
    "--quiet",
)
_EMA = ("--ranges", "ema", "--gradient", "straight-through", "--norms", "kept")
_RELU = ("--bits", "w3a3", "--placement", "relu-output", *_EMA)
_STORED = ("--bits", "w4a4", "--placement", "layer-input", "--joins", "8", *_EMA)
_BLOCKS = ("--bits", "w3a3")

_QUANTIZE = {
    "gdfq": ("--method", "gdfq", *_RELU),
    "adadfq": ("--method", "adadfq", *_RELU),
    "adadfq+ris+agm": ("--method", "adadfq+ris+agm", *_RELU),
    "acq": ("--method", "acq", *_RELU),
    "adadfq, 8-bit element-wise inputs": ("--method", "adadfq", *_STORED),
    "brecq": ("--method", "brecq", *_BLOCKS),
    "qdrop": ("--method", "qdrop", *_BLOCKS),
    "genie": ("--method", "genie", *_BLOCKS),
}
_TWO_PROCESSES = "gdfq, two processes"
_DISTILL = "distill, adadfq"
RUNS = (*_QUANTIZE, _TWO_PROCESSES, _DISTILL)


class _Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(out + x)  # type: ignore[no-any-return]


def network(channels: int = 8) -> nn.Module:
    """A residual network for images of 3 x 16 x 16 and 5 classes."""
    return nn.Sequential(
        nn.Conv2d(3, channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        _Block(channels),
        _Block(channels),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(channels, 5),
    )


def _weights(file: Path) -> None:
    """Seeded weights, and batch-norm statistics as if the network had been trained."""
    torch.manual_seed(0)
    made = network()
    for norm in made.modules():
        if isinstance(norm, nn.BatchNorm2d):
            assert norm.running_mean is not None
            assert norm.running_var is not None
            nn.init.normal_(norm.running_mean, std=0.3)
            nn.init.uniform_(norm.running_var, 0.2, 1.5)
    save_file(made.state_dict(), file)


def _command(name: str, folder: Path, iterations: int) -> list[str]:
    """The words of one run, after ``python``."""
    pinned = (*_PINNED, "--iterations", str(iterations))
    teacher = (f"{Path(__file__).resolve()}:network", "--weights", str(folder / "weights"))
    out = ("--out", str(folder / "out"))
    start = ["-c", _ENTRY]
    if name == _DISTILL:
        student = ("--student", f"{folder / 'small.py'}:network", "--bits", "w4a4")
        method = ("--method", "adadfq")
        return [*start, "distill", *teacher, *_INPUT, *student, *method, *pinned, *out]
    options = _QUANTIZE[name.removesuffix(", two processes")]
    return [*start, "quantize", *teacher, *_INPUT, *options, *pinned, *out]


def _environments(count: int) -> list[dict[str, str]]:
    """What torchrun sets for each of so many processes."""
    if count == 1:
        return [{}]
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count)}
    return [shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)]


def digest(name: str, checkout: Path, iterations: int) -> str:
    """The SHA-256 of one run's ``student.safetensors``, or the last line of its error."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        _weights(folder / "weights")
        source = f"import importlib.util as u\ns = u.spec_from_file_location('t', {__file__!r})\n"
        source += "t = u.module_from_spec(s)\ns.loader.exec_module(t)\n"
        (folder / "small.py").write_text(f"{source}def network(): return t.network(4)\n")
        base = os.environ | {"PYTHONPATH": str(checkout / "src"), "OMP_NUM_THREADS": "1"}
        started = [
            subprocess.Popen(
                [sys.executable, *_command(name, folder, iterations)],
                env=base | own,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for own in _environments(2 if name == _TWO_PROCESSES else 1)
        ]
        errors = [process.communicate()[1] for process in started]
        if any(process.returncode for process in started):
            return (errors[0].strip().splitlines() or ["it ended without a message"])[-1]
        return hashlib.sha256((folder / "out" / "student.safetensors").read_bytes()).hexdigest()


def main(words: Sequence[str] | None = None) -> None:
    """Print a row for each run."""
    here = Path(__file__).resolve().parents[1]
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--checkout", type=Path, default=here, help="whose package to run")
    parser.add_argument("--iterations", type=int, default=60)
    parser.add_argument("--runs", nargs="+", choices=RUNS, default=RUNS, metavar="RUN")
    asked = parser.parse_args(words)
    width = max(map(len, RUNS))
    for name in asked.runs:
        made = digest(name, asked.checkout.resolve(), asked.iterations)
        print(f"{name:{width}}  {made}", flush=True)


if __name__ == "__main__":
    main()
