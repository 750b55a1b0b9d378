"""Remedies of errors that end runs, each done as it says."""

from __future__ import annotations

import errno
import importlib
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import dreamquant
import tiny
from dreamquant.export.job import export_result
from dreamquant.jobs.checkpoint import STATE, read, require_same_run
from dreamquant.jobs.grid import read_grid
from dreamquant.networks import demo
from dreamquant.networks.load import Network, wrap_module
from dreamquant.quantization.convert import quantize_network
from dreamquant.quantization.prepare import FoldBatchNorms, Preparation, prepared
from dreamquant.quantization.scheme import Bits, Scheme
from dreamquant.recovery.closed_form import RoundByLeastSquares
from dreamquant.results.files import write_bytes
from dreamquant.synthesis.filters import filtered
from dreamquant.synthesis.generator import Stream
from dreamquant.synthesis.given import Given
from dreamquant.terms.activation_maps import class_activation
from dreamquant.training import tracing
from dreamquant.training.compiled import Compiled
from dreamquant.training.losses import require_finite_losses
from remedies import Trial, advises, command, quantized
from tiny_runs import blind_classifier, tiny_network

# -------------------------------------------------------------------------------- networks


class Net(nn.Module):
    """Two layers with a ReLU between them; ``between`` is the rest."""

    def __init__(self, head: int = 4) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(1, 4, 3), nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, 5)."""
        return self.head(self.between(self.stem(x)).mean((2, 3)))  # type: ignore[no-any-return]

    def between(self, x: Tensor) -> Tensor:
        """Between the layers."""
        return F.relu(x)


class Unread(Net):
    """A ReLU whose result nothing reads."""

    def between(self, x: Tensor) -> Tensor:
        """Between the layers."""
        F.relu(x)
        return x


class Computed(Net):
    """A hook computes a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.source = nn.Parameter(self.head.weight.detach() / 2)
        del self.head.weight
        self.hook = self.head.register_forward_pre_hook(
            lambda head, _: setattr(head, "weight", 2 * self.source)
        )
        self.eval()(torch.zeros(2, 1, 8, 8))

    def assigned(self) -> Computed:
        """The same with its weight computed once."""
        self.hook.remove()
        self.head.weight = nn.Parameter(2 * self.source.detach())
        return self


class Shared(nn.Module):
    """A convolution and a transposed one with one weight."""

    def __init__(self, *, own: bool = False) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(1, 4, 3, padding=1), nn.ConvTranspose2d(4, 1, 3, padding=1)
        self.up.weight = self.down.weight
        if own:
            self.up.weight = nn.Parameter(self.up.weight.clone())
        self.head = nn.Linear(64, 5)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, 5)."""
        return self.head(self.up(self.down(x).relu()).flatten(1))  # type: ignore[no-any-return]


class Standardized(nn.Conv2d):
    """Computes with another tensor than its weight."""

    def forward(self, x: Tensor) -> Tensor:
        """The convolution."""
        return F.conv2d(x, self.weight - self.weight.mean(), self.bias)


def standardized() -> nn.Module:
    """A network with such a layer."""
    return nn.Sequential(
        Standardized(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)
    )


class Counting(Net):
    """It answers otherwise each time it is called."""

    calls = 0

    def between(self, x: Tensor) -> Tensor:
        """Between the layers."""
        self.calls += 1
        return F.relu(x) + 0.1 * self.calls


class Remembering(Net):
    """The same number in a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.ones(()))

    def between(self, x: Tensor) -> Tensor:
        """Between the layers."""
        return F.relu(x) + 0.1 * self.calls  # type: ignore[no-any-return]


class Branching(Net):
    """It goes another way where an image is bright."""

    def between(self, x: Tensor) -> Tensor:
        """Between the layers."""
        return F.relu(x) if float(x.mean()) < 0.5 else x


class Skipping(Net):
    """It leaves a layer out where an image is dark."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.more = nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1)

    def between(self, x: Tensor) -> Tensor:
        """Between the layers."""
        x = self.norm(x)
        return F.relu(self.more(x) if float(x.flatten()[0]) > 0 else x)


class Constant(Net):
    """Its code makes a constant of the number of images."""

    def between(self, x: Tensor) -> Tensor:
        """Between the layers."""
        return F.relu(x).reshape(int(x.shape[0]), 4, 6, 6)


class Dynamic(Net):
    """It takes that number from the shape."""

    def between(self, x: Tensor) -> Tensor:
        """Between the layers."""
        return F.relu(x).reshape(x.shape[0], 4, 6, 6)


class Doubled(Preparation):
    """A preparation that changes what a network computes."""

    def apply(self, network: nn.Module, example: Tensor) -> None:
        """Twice the weight."""
        network[0].weight.mul_(2)  # type: ignore[index,operator,union-attr]


def varying(placement: str, **options: Any) -> Callable[[Path], None]:
    """Two passes of a student whose network does otherwise for more images."""

    class Varying(Net):
        def between(self, x: Tensor) -> Tensor:
            return F.relu(F.relu(x) @ x) + x if len(x) == 3 else F.relu(x @ x)

    def go(_: Path) -> None:
        scheme = Scheme(Bits(4, 4), placement, **options)  # type: ignore[arg-type]
        example = torch.zeros(2, 1, 8, 8)
        student, _ = quantize_network(Varying().eval().requires_grad_(False), scheme, example)
        student(torch.randn(3, 1, 8, 8))

    return go


def run(network: Callable[[], nn.Module], **options: Any) -> Callable[[Path], Any]:
    """A run on a network."""

    def go(folder: Path) -> None:
        torch.manual_seed(0)
        quantized(folder, network=network().eval(), **options)

    return go


def exports(network: Callable[[], nn.Module], target: Any = "int8box", **options: Any) -> Any:
    """A run and its file."""

    def go(folder: Path) -> None:
        pytest.importorskip("onnxscript")
        torch.manual_seed(0)
        result = quantized(folder, network=network().eval(), **options)
        export_result(result, [target], to=folder / "to")

    return go


def solves(network: Callable[[], nn.Module]) -> Callable[[Path], None]:
    """Asks least squares."""

    def go(_: Path) -> None:
        scheme = Scheme(Bits(4, 4), "layer-input")
        RoundByLeastSquares().suited(network().eval(), torch.zeros(2, 1, 8, 8), scheme)

    return go


def bits(network: Network | None = None, **options: Any) -> Callable[[Path], None]:
    """Bits that are chosen."""
    given: dict[str, Any] = {"device": "cpu", "quiet": True} | options
    made = network or wrap_module(tiny_network(), tiny.INPUT)
    return lambda _: dreamquant.quantize(made, "auto", "squant", **given)


# -------------------------------------------------------------------------------- grids

NETWORK = "[network.a]\nnetwork = 'net.py:make'\ninput = '1x8x8'\nmean = '0'\nstd = '1'\n"
GRID = "[grid]\nmethod = 'squant'\nbits = ['w4a4', 'w3a3']\n"


def grid(*sections: str) -> Callable[[Path], None]:
    """A grid file."""

    def go(folder: Path) -> None:
        (folder / "weights.pt").touch()
        (folder / "grid.toml").write_text("\n".join(sections))
        assert read_grid(folder / "grid.toml")

    return go


def binary(folder: Path) -> None:
    """A grid file that is no text."""
    (folder / "grid.toml").write_bytes(b"\xff\xfe")
    read_grid(folder / "grid.toml")


GOOD = grid(NETWORK, GRID)
TRIALS = [
    Trial(
        "jobs/grid.py:read_grid: names no network",
        grid(GRID),
        "write a section [network.NAME]",
        GOOD,
    ),
    Trial(
        "jobs/grid.py:read_grid: no cell",
        grid(NETWORK, GRID, "[[except]]\nnetwork = 'a'"),
        "check its lists and [[except]] sections",
        grid(NETWORK, GRID, "[[except]]\nbits = 'w3a3'"),
    ),
    Trial(
        "jobs/grid.py:_read: cannot be read",
        binary,
        "check the path; it has to be a text file",
        GOOD,
    ),
    Trial("jobs/grid.py:_read: not TOML", grid("[grid", NETWORK), "mend that line", GOOD),
    Trial(
        "jobs/grid.py:_read: no section",
        grid(NETWORK, GRID, "[cells]"),
        "write network, grid, except",
        grid(NETWORK, GRID, "[[except]]\nbits = 'w3a3'"),
    ),
    Trial(
        "jobs/grid.py:_require_network: does not say",
        grid("[network.a]\nweights = 'weights.pt'", GRID),
        'write network = "torchvision:resnet18" under [network.a]',
        grid('[network.a]\nnetwork = "torchvision:resnet18"', GRID),
    ),
    Trial(
        "jobs/grid.py:_require_network: cannot have",
        grid(NETWORK + "bits = 'w4a4'"),
        "it takes network, weights, input, mean, std",
        grid(NETWORK + "weights = 'weights.pt'", GRID),
    ),
    Trial(
        "jobs/grid.py:_require_options: [grid] cannot have",
        grid(NETWORK, GRID + "data = 'images.npz'"),
        "give it to its network",
        grid(NETWORK + "data = 'images.npz'", GRID),
    ),
    Trial(
        "jobs/grid.py:_require_options: [grid] cannot have",
        grid(NETWORK, GRID + "resume = true"),
        "leave it out",
        GOOD,
    ),
    Trial(
        "jobs/grid.py:_require_options: empty list",
        grid(NETWORK, GRID + "seed = []"),
        "give it a value",
        grid(NETWORK, GRID + "seed = [0]"),
    ),
    Trial(
        "jobs/grid.py:_content",
        grid(NETWORK + "weights = 'absent.pt'", GRID),
        "check the path: it is relative to the grid's folder",
        grid(NETWORK + "weights = 'weights.pt'", GRID),
    ),
    # ------------------------------------------------------------------------ bits that fit
    Trial(
        "jobs/bits.py:_chosen",
        bits(demo.teacher(), max_drop="0", override=("*=w2a8",)),
        "allow more, or give --size",
        bits(demo.teacher(), max_drop="99", override=("*=w2a8",)),
    ),
    Trial(
        "jobs/bits.py:_require_decisions",
        bits(blind_classifier(), max_drop="5"),
        "check --mean, --std and --bgr, or give --size",
        bits(blind_classifier(), size="60kB"),
    ),
    Trial(
        "quantization/allocation.py:allocate",
        bits(size="100B"),
        "give a larger size",
        bits(size="2kB"),
    ),
    # ----------------------------------------------------------------------------- networks
    Trial(
        "quantization/convert.py:_require_plain_weights",
        run(Computed),
        "without its hook: layer.weight = torch.nn.Parameter(value)",
        run(lambda: Computed().assigned()),
    ),
    Trial(
        "quantization/convert.py:_quantize_layer",
        run(Shared),
        "give it a weight of its own: layer.weight = nn.Parameter(layer.weight.clone())",
        run(lambda: Shared(own=True)),
    ),
    Trial(
        "quantization/coverage.py:_require_rounding",
        run(Unread, placement="relu-output", scheme="paper"),
        "use --placement layer-input",
        run(Unread, placement="layer-input"),
    ),
    Trial(
        "quantization/operands.py:_miscounted",
        varying("operands"),
        "use --placement layer-input",
        varying("layer-input"),
    ),
    Trial(
        "quantization/outputs.py:_miscounted",
        varying("relu-output"),
        "use --placement layer-input",
        varying("layer-input"),
    ),
    Trial(
        "quantization/stored.py:_miscounted",
        varying("layer-input", joins=8),
        "leave --elementwise out",
        varying("layer-input"),
    ),
    Trial(
        "quantization/prepare.py:_require_equal",
        lambda _: prepared(tiny_network(), (Doubled(),), torch.randn(2, 1, 8, 8)),
        "choose a method without it",
        lambda _: prepared(tiny_network(), (FoldBatchNorms(),), torch.randn(2, 1, 8, 8)),
    ),
    Trial(
        "recovery/stepwise.py:require_steady",
        solves(Skipping),
        "use a method that trains the student, such as --method adadfq",
        run(
            Skipping,
            method="adadfq",
            scheme="paper",
            placement="layer-input",
            iterations=2,
        ),
    ),
    Trial(
        "recovery/as_run.py:as_run",
        solves(standardized),
        "use a method that does not solve for weights, such as --method squant",
        run(standardized),
    ),
    Trial(
        "results/rehearsal.py:_require_same",
        run(Counting, scheme="paper"),
        "in parameters and buffers of its state_dict, and let equal images give equal outputs",
        run(Remembering, scheme="paper"),
    ),
    # ------------------------------------------------------------------------------- export
    Trial(
        "export/graph.py:_require_static",
        exports(tiny_network, method="granq", iterations=2),
        "quantize by a method whose ranges are static, such as adadfq",
        exports(tiny_network, method="adadfq", iterations=2),
    ),
    Trial(
        "export/graph.py:_require_any_batch",
        exports(Constant),
        "use `x.shape[0]` wherever that number is needed",
        exports(Dynamic),
    ),
    Trial(
        "export/tracing.py:tracing",
        exports(Branching, placement="layer-input"),
        "write that part of its forward pass with operations that `torch.onnx.export` supports",
        exports(Net, placement="layer-input"),
    ),
    # ---------------------------------------------------------------------------------- runs
    Trial(
        "jobs/budget.py:fit",
        run(tiny_network, method="gdfq", budget="0.01s"),
        "give more time",
        run(tiny_network, method="gdfq", budget="5s"),
    ),
    Trial(
        "synthesis/filters.py:filtered",
        lambda _: none_left(8),
        "give more pictures",
        lambda _: none_left(200),
    ),
]


class InMemory:
    """Pictures that are tensors."""

    targets = None

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def read(self, rows: Sequence[int]) -> Tensor:
        """Rows of them."""
        return self.images[list(rows)]


def none_left(count: int) -> None:
    """Of pictures that all take the statistics away, none is left; of more pictures some are."""

    rows = torch.randn(count, 1, 8, 8)
    pictures = Given("pictures", "x", count, "sha", InMemory(rows))
    from dreamquant.synthesis import filters

    with pytest.MonkeyPatch.context() as patch:
        if count < 100:
            patch.setattr(filters, "sensitivities", lambda s: torch.ones(len(s.mean)))
        filtered(pictures, tiny_network(), torch.zeros(2, 1, 8, 8), 1.0)


@pytest.mark.parametrize("trial", TRIALS, ids=lambda trial: trial.site)
def test_what_a_remedy_advises_works(trial: Trial, tmp_path: Path) -> None:
    trial.run(tmp_path)


# ----------------------------------------------------------------------- stopped and resumed


def stopped(folder: Path, **options: Any) -> None:
    """A run that Ctrl-C ends after its first update."""
    usual = Stream.update

    def update(images: Stream) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        usual(images)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stream, "update", update)
        with pytest.raises(KeyboardInterrupt):
            quantized(folder, out="out", **options)


RUN: dict[str, Any] = {"method": "adadfq", "iterations": 4, "bits": "w4a4"}


def test_an_unfinished_run(tmp_path: Path) -> None:
    stopped(tmp_path, **RUN)
    with advises(
        "jobs/resume.py:open_folder: unfinished",
        "add --resume to go on with it, or give another folder",
    ):
        quantized(tmp_path, out="out", **RUN)
    quantized(tmp_path, out="other", **RUN)
    with advises(
        "jobs/checkpoint.py:require_same_run", "give the same options as before, or another --out"
    ):
        quantized(tmp_path, out="out", resume=True, **RUN | {"seed": 1})
    quantized(tmp_path, out="third", resume=True, **RUN | {"seed": 1})
    quantized(tmp_path, out="out", resume=True, **RUN)


def test_a_run_on_another_device(tmp_path: Path) -> None:
    made = {"device": "cuda", "seed": 0}
    with advises(
        "jobs/checkpoint.py:require_same_run",
        "resume on a machine with this device, or start again with another --out",
    ):
        require_same_run(made, made | {"device": "cpu"}, tmp_path)
    require_same_run(made, made, tmp_path)


def test_a_damaged_checkpoint(tmp_path: Path) -> None:
    stopped(tmp_path, **RUN)
    state = tmp_path / "out" / "checkpoint" / STATE
    assert read(state.parent)
    state.write_bytes(state.read_bytes()[:100])
    with advises(
        "jobs/checkpoint.py:_unusable", "start again without --resume, into another folder"
    ):
        quantized(tmp_path, out="out", resume=True, **RUN)
    quantized(tmp_path, out="other", **RUN)


def test_a_run_that_diverges(tmp_path: Path) -> None:
    advice = "another --seed or more bits may train"
    with advises("training/losses.py:require_finite_losses", advice):
        require_finite_losses({"student/Loss": torch.nan}, 3)
    broken = tiny_network()
    broken[0].weight.data.fill_(torch.nan)  # type: ignore[operator,union-attr]
    finite = importlib.import_module("dreamquant.training.finite").require_finite_networks
    with advises("training/finite.py:require_finite_networks", advice):
        finite({"student": broken}, 3)
    quantized(tmp_path, **RUN | {"seed": 1, "bits": "w8a8"})


def test_memory_that_does_not_suffice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: Stream) -> None:
        raise torch.OutOfMemoryError("no memory")

    stopped(tmp_path, **RUN)
    with monkeypatch.context() as patch:
        patch.setattr(Stream, "update", full)
        with advises("jobs/memory.py:sparing_memory", "--micro-batches 2 processes half a batch"):
            quantized(tmp_path, out="out", resume=True, **RUN)
    quantized(tmp_path, out="out", resume=True, **RUN)
    quantized(tmp_path, micro_batches=2, **RUN)
    quantized(tmp_path, precision="bf16", **RUN)


def test_a_disk_without_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("quantize", *tiny.options(tmp_path, 2), "--out")

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "a file")

    with monkeypatch.context() as patch:
        patch.setattr("dreamquant.results.result.write_tensors", full)
        with advises("cli/ending.py:_unwritable", "give --out on another disk"):
            command(*words, tmp_path / "out")
    command(*words, tmp_path / "other")
    with monkeypatch.context() as patch:
        patch.setattr("dreamquant.results.files._write_and_rename", full)
        with advises("results/files.py:writing", "free some space, or write to another disk"):
            write_bytes(tmp_path / "a", b"")
    write_bytes(tmp_path / "a", b"")


def test_ranges_that_nothing_sets(tmp_path: Path) -> None:
    from dataclasses import replace

    from dreamquant.methods import find_method
    from dreamquant.recovery.calibrate import Calibrate
    from dreamquant.recovery.without_images import RangesFromNoise

    bare = replace(find_method("squant"), name="bare", recovery=(), prepare=())
    with advises(
        "jobs/measurements.py:_require_ranges",
        "let a part of the method set ranges: Calibrate(), or RangesFromNoise() where ",
    ):
        quantized(tmp_path, method=bare)
    quantized(tmp_path, method=replace(bare, recovery=(RangesFromNoise(),)))
    images = find_method("minutes").images
    quantized(tmp_path, method=replace(bare, images=images, recovery=(Calibrate(),)), iterations=2)


# --------------------------------------------------------------------------------- compiled


def test_what_cannot_be_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "_compiled", lambda graph, device: graph)
    x = torch.randn(4, 1, 8, 8)
    with advises("training/tracing.py:_refused", "leave --compile away"):
        Compiled(Branching())(x)
    run(tiny_network, **RUN)(tmp_path)


class Apart:
    """A view whose output was not computed from the map that it gives."""

    output = torch.ones(2, 5, requires_grad=True)

    def __getitem__(self, tap: object) -> Tensor:
        return torch.ones(2, 3, 4, 4, requires_grad=True)


def test_activation_maps_of_what_gives_no_gradient(tmp_path: Path) -> None:
    view: Any = Apart()
    with advises("terms/activation_maps.py:class_activation", "leave --compile out, or choose"):
        class_activation(view, torch.zeros(2, dtype=torch.int64))
    run(tiny_network, method="synq", iterations=2)(tmp_path)
    run(tiny_network, method="hast", iterations=2)(tmp_path)
