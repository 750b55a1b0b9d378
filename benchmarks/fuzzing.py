"""Damaged and malicious files and arguments: all end in a documented error, or in an answer."""

from __future__ import annotations

import hashlib
import io
import json
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

import tiny
from confined import confined
from dreamquant import export_result, open_result
from dreamquant.cli import main as cli
from dreamquant.cli import reading
from dreamquant.errors import DreamQuantError
from dreamquant.evaluation.data import open_images
from dreamquant.export.runtime import open_onnx
from dreamquant.jobs import checkpoint
from dreamquant.jobs.checkpoint import STATE
from dreamquant.jobs.request import QuantizeRequest
from dreamquant.networks.checkpoints import load_weights
from dreamquant.quantization.scheme import Bits
from dreamquant.report.write import write_report
from dreamquant.results.folder import STUDENT
from dreamquant.results.manifest import MANIFEST
from dreamquant.text import parse_duration
from malice import CANARY, altered, damaged, pickles, reheaded
from malicious_images import arrays, tars


@dataclass(frozen=True)
class Surface:
    """A kind of input that may be malicious.

    Attributes:
        name: of it.
        cases: what to read.
        read: reads a case, in a folder of its own.
    """

    name: str
    cases: st.SearchStrategy[Any]
    read: Callable[[Any], object]


@dataclass
class Outcome:
    """How the cases ended.

    Attributes:
        cases: that were read.
        refused: of them, with a documented error.
        seconds: that the slowest took.
    """

    cases: int = 0
    refused: int = 0
    seconds: float = 0.0


def fuzz(surface: Surface, folder: Path, *, cases: int, chance: int) -> Outcome:
    """Read so many cases.

    Args:
        surface: to read them from.
        folder: the only one that may be written to.
        cases: at most; fewer where there are no more.
        chance: seed.

    Raises:
        BaseException: anything but a documented error, of the simplest case found.
    """
    outcome = Outcome()

    def read(case: Any) -> None:
        began = time.monotonic()
        with confined(folder):
            try:
                surface.read(case)
            except DreamQuantError:
                outcome.refused += 1
        assert not (folder / CANARY).exists(), "code from the file ran"
        outcome.cases += 1
        outcome.seconds = max(outcome.seconds, time.monotonic() - began)

    checked = settings(
        max_examples=cases,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )(given(surface.cases)(read))
    seed(chance)(checked)()
    return outcome


def surfaces(folder: Path) -> list[Surface]:
    """All kinds of input; the valid files that they are derived from are made in ``folder``."""
    whole = folder / "whole"
    _run(["quantize", *tiny.options(folder, 2), "--out", str(whole)])
    return [
        Surface("notations", notations(), _read_notation),
        Surface("arguments", arguments(folder), _run),
        *_of_result(folder, whole),
        *_of_images(folder),
        _of_onnx(folder, whole),
    ]


# -------------------------------------------------------------------- texts and options


def notations() -> st.SearchStrategy[str]:
    """What may be given for bits, shapes, numbers, durations and overrides."""
    digits = st.integers(0, 6000).map(lambda count: "9" * count)
    return st.one_of(
        st.text(max_size=20),
        st.from_regex(r"[wW]\d{0,4}[aA]\d{0,4}", fullmatch=True),
        st.builds(lambda *parts: "".join(parts), st.just("w"), digits, st.just("a"), digits),
        st.from_regex(r"\d{1,6}x\d{1,6}x\d{1,6}", fullmatch=True),
        st.builds(lambda many: f"3x{many}x3", digits),
        st.from_regex(r"-?[\d.,einfa]{0,12}", fullmatch=True),
        st.from_regex(r"\d{0,12}(s|m|min|h|d)?", fullmatch=True),
    )


def _read_notation(text: str) -> None:
    readers: tuple[Callable[[str], object], ...] = (
        Bits.parse,
        reading.parse_shape,
        lambda text: reading.parse_numbers(text, "--mean"),
        parse_duration,
        lambda text: QuantizeRequest(override=(text,)).overrides,
    )
    refused = [error for read in readers if (error := _refusal(read, text))]
    if refused:
        raise refused[0]


def _refusal(read: Callable[[str], object], text: str) -> DreamQuantError | None:
    try:
        read(text)
    except DreamQuantError as error:
        return error
    return None


_COMMANDS = (
    "quantize",
    "distill",
    "evaluate",
    "export",
    "predict",
    "benchmark",
    "report",
    "methods",
)


def arguments(folder: Path) -> st.SearchStrategy[list[str]]:
    """Command lines; none can start a long run."""
    names = ["--out", "--weights", "--input", "--mean", "--std", "--classes", "--bits", "--seed"]
    names += ["--placement", "--first-last", "--override", "--elementwise", "--ranges", "--method"]
    names += ["--preset", "--budget", "--iterations", "--device", "--precision", "--data"]
    names += ["--limit", "--resume", "--json", "--target", "--to", "--top", "--runs", "--student"]
    odd = [
        "",
        "-",
        "--",
        "-1",
        "0",
        "1e9",
        "nan",
        "w4a4",
        "../..",
        "/dev/null",
        "x" * 300,
        "é\u202e",
    ]
    odd += [
        str(folder),
        str(folder / "nothing"),
        f"{folder}/tiny.safetensors",
        "a.py:b",
        "a" * 5000,
    ]
    # A shell passes on any bytes but zeros; those that are no UTF-8 arrive as lone surrogates.
    text = st.text(st.characters(exclude_characters="\0"), max_size=12) | st.just("\udcff")
    token = st.sampled_from(odd) | text
    option = st.tuples(st.sampled_from(names), token).map(list) | token.map(lambda one: [one])
    # From none of them right to all but one.
    right = ["quantize", *tiny.options(folder, 2), "--out", str(folder / "whole")]
    begun = st.builds(lambda command: [command], st.sampled_from(_COMMANDS) | token)
    return st.builds(
        lambda begin, parts: [*begin, *(token for part in parts for token in part)],
        begun | st.just(right),
        st.lists(option, max_size=4),
    )


def _run(line: list[str]) -> None:
    written = io.TextIOWrapper(io.BytesIO(), "utf-8", errors="backslashreplace")
    with redirect_stdout(written), redirect_stderr(written):
        code = _exit_code(line)
    if code == 2:
        raise DreamQuantError("refused, as the command line does")
    assert code == 0, code


def _exit_code(line: list[str]) -> object:
    try:
        cli.main(line)
    except SystemExit as ended:
        return ended.code or 0
    return 0


# ------------------------------------------------------------------------ result folders


def _of_result(folder: Path, whole: Path) -> list[Surface]:
    manifest = json.loads((whole / MANIFEST).read_bytes())
    student = (whole / STUDENT).read_bytes()
    other = folder / "other"
    other.mkdir()
    evil = folder / "evil.py"
    evil.write_text(f"import os\nos.mkdir({str(folder / CANARY)!r})\n")
    names = st.sampled_from(
        (f"{evil}:network", f"{tiny.__file__}:CLASSES", "zoo:x", "torchvision:")
    )

    def read_result(case: object) -> None:
        (other / STUDENT).write_bytes(student)
        text = case if isinstance(case, bytes) else json.dumps(case, default=str).encode()
        (other / MANIFEST).write_bytes(text)
        open_result(other).summary()
        write_report([other])

    def read_weights(suffix: str) -> Callable[[bytes], None]:
        path = folder / f"weights{suffix}"

        def read(data: bytes) -> None:
            path.write_bytes(data)
            load_weights(tiny.network(), path)

        return read

    def read_student(data: bytes) -> None:
        (other / STUDENT).write_bytes(data)
        # With a checksum to match: who sends a file may send that too.
        digest = hashlib.sha256(data).hexdigest()
        files = manifest["files"] | {STUDENT: {"sha256": digest, "bytes": len(data)}}
        (other / MANIFEST).write_text(json.dumps(manifest | {"files": files}))
        open_result(other)

    def read_checkpoint(data: bytes) -> None:
        (other / STATE).write_bytes(data)
        checkpoint.read(other)

    def renamed(name: str) -> dict[str, Any]:
        return {**manifest, "network": {**manifest["network"], "name": name}}

    weights = (folder / "tiny.safetensors").read_bytes()
    state = {"configuration": {"seed": 0}, "record": {}, "training": {"weights": torch.zeros(9)}}
    deep = st.sampled_from((b"[" * 100_000, b'{"schema":' * 50_000, b"\xff", b'{"schema": 1}'))
    manifests = altered(manifest) | names.map(renamed) | damaged((whole / MANIFEST).read_bytes())
    return [
        Surface("manifest", manifests | deep, read_result),
        Surface("student.safetensors", damaged(student) | reheaded(student), read_student),
        Surface(
            "weights, safetensors",
            damaged(weights) | reheaded(weights),
            read_weights(".safetensors"),
        ),
        Surface(
            "weights, torch", pickles(folder, tiny.network().state_dict()), read_weights(".pt")
        ),
        Surface("checkpoint", pickles(folder, state), read_checkpoint),
    ]


# ------------------------------------------------------------------------------- images


def _of_images(folder: Path) -> list[Surface]:
    def read_as(suffix: str) -> Callable[[bytes], None]:
        path = folder / f"images{suffix}"

        def read(data: bytes) -> None:
            path.write_bytes(data)
            for _ in open_images(path, tiny.INPUT).batches(4):
                pass

        return read

    return [
        Surface("images, npz", arrays(folder), read_as(".npz")),
        Surface("images, tar", tars(), read_as(".tar")),
    ]


# --------------------------------------------------------------------------------- ONNX


def _of_onnx(folder: Path, whole: Path) -> Surface:
    data = export_result(whole, ("int8box",), to=folder)[0].path.read_bytes()
    path = folder / "fuzzed.onnx"

    def read(case: bytes) -> None:
        path.write_bytes(case)
        network = open_onnx(path, threads=1)
        network(torch.zeros(1, *tiny.INPUT.shape))

    return Surface("ONNX", damaged(data) | _models(data), read)


@st.composite
def _models(draw: st.DrawFn, data: bytes) -> bytes:
    """A model whose metadata, initializers or nodes say something else."""
    model = onnx.load_model_from_string(data)
    entry = draw(st.sampled_from(model.metadata_props))
    entry.value = draw(st.text(max_size=9) | altered(json.loads(entry.value)).map(json.dumps))
    if draw(st.booleans()):
        tensor = draw(st.sampled_from(model.graph.initializer))
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=draw(st.sampled_from(_LOCATIONS)))
    if draw(st.booleans()):
        node = draw(st.sampled_from(model.graph.node))
        node.op_type = draw(st.sampled_from(("Loop", "Nothing", "Reshape", "ConstantOfShape")))
    return bytes(model.SerializeToString())


_LOCATIONS = ("/etc/passwd", "../../../etc/passwd", "nothing", "", "/dev/zero")
