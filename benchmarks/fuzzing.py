"""Damaged and malicious files and arguments: all end in a documented error, or in an answer."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import os
import pickle
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from PIL import Image

import tiny
from confined import confined
from dreamquant import cli, export_result, open_result, options
from dreamquant.errors import DreamQuantError
from dreamquant.evaluation.data import open_images
from dreamquant.export.runtime import open_onnx
from dreamquant.networks.weights import load_weights
from dreamquant.quantization.scheme import Bits
from dreamquant.report.write import write_report
from dreamquant.results.manifest import MANIFEST
from dreamquant.results.result import STUDENT
from dreamquant.training import checkpoint
from dreamquant.training.budget import parse_duration
from dreamquant.training.checkpoint import STATE

CANARY = "executed"
_HEADER = 8  # bytes of a safetensors file before its header


@dataclass(frozen=True)
class Surface:
    """Something a stranger may have written.

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
    """What became of the cases.

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
    """All of them; the files they are derived from are made in ``folder``."""
    whole = folder / "whole"
    _run(["quantize", *tiny.options(folder, 2), "--out", str(whole)])
    return [
        Surface("notations", notations(), _read_notation),
        Surface("arguments", arguments(folder), _run),
        *_of_result(folder, whole),
        *_of_images(folder),
        _of_onnx(folder, whole),
    ]


# ------------------------------------------------------------------------- what is odd

ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from((-1, 0, 1, 2**31, 2**63, 10**30, -(2**63), 1e308, float("nan"), float("inf"))),
    st.sampled_from(("", "../../etc/passwd", "/dev/zero", "w4a4", "x" * 5000, "\ud800", "%s{0}")),
    st.integers(),
    st.text(max_size=8),
    st.lists(st.integers(-3, 70000), max_size=5),
    st.dictionaries(st.text(max_size=4), st.integers(), max_size=3),
)


@st.composite
def altered(draw: st.DrawFn, document: Any) -> Any:
    """A JSON document with up to three values replaced, removed or added."""
    document = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 3))):
        places = list(_places(document))
        if not places:
            return draw(ODD)
        place, key = draw(st.sampled_from(places))
        if draw(st.integers(0, 4)) == 0:
            del place[key]
        else:
            place[key] = draw(ODD)
    return document


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    keys = value if isinstance(value, dict) else range(len(value)) if type(value) is list else ()
    for key in keys:
        yield value, key
        yield from _places(value[key])


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """Bytes that were cut, overwritten, repeated or added to."""
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        length = draw(st.integers(0, 64))
        change = draw(st.sampled_from(("cut", "overwrite", "insert", "repeat", "remove")))
        new = draw(st.binary(max_size=length) | st.sampled_from((b"\xff" * 8, b"\0" * 8)))
        data = {
            "cut": data[:at],
            "overwrite": data[:at] + new + data[at + len(new) :],
            "insert": data[:at] + new + data[at:],
            "repeat": data[: at + length] + data[at:],
            "remove": data[:at] + data[at + length :],
        }[change]
    return data


class Malicious:
    """A pickle that makes a folder when it is read."""

    def __init__(self, victim: Path) -> None:
        self.victim = str(victim)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, (self.victim,)


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
        options.parse_shape,
        lambda text: options.parse_numbers(text, "--mean"),
        parse_duration,
        lambda text: Bits.parse(options.parse_override(text)[1]),
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
    """Command lines; none of them has a network that can be run for long."""
    names = ["--out", "--weights", "--input", "--mean", "--std", "--classes", "--bits", "--seed"]
    names += ["--placement", "--first-last", "--override", "--joins", "--ranges", "--method"]
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
        return manifest | {"network": manifest["network"] | {"name": name}}

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
            "weights, torch", _pickles(folder, tiny.network().state_dict()), read_weights(".pt")
        ),
        Surface("checkpoint", _pickles(folder, state), read_checkpoint),
    ]


@st.composite
def reheaded(draw: st.DrawFn, data: bytes) -> bytes:
    """A safetensors file whose header tells other names, types, shapes or places."""
    length = int.from_bytes(data[:_HEADER], "little")
    header = json.loads(data[_HEADER : _HEADER + length])
    name = draw(st.sampled_from([key for key in header if key != "__metadata__"]))
    types = ("F64", "BF16", "I64", "BOOL", "F8_E4M3", "F8_E8M0", "F4", "C64", "U8", "Q9")
    fields = {
        "dtype": st.sampled_from(types),
        "shape": st.lists(st.sampled_from((0, 1, 3, 2**31, 2**62)), max_size=4),
        "data_offsets": st.lists(st.sampled_from((0, 1, 8, 2**40, 2**63)), max_size=3),
    }
    for field in draw(st.lists(st.sampled_from(sorted(fields)), min_size=1, max_size=3)):
        header[name][field] = draw(fields[field])
    changed = draw(st.just(header) | altered(header))
    encoded = json.dumps(changed).encode("utf-8", "surrogatepass")
    size = draw(st.sampled_from((len(encoded), len(encoded) + 1, 2**40, 2**64 - 1, 0)))
    return size.to_bytes(_HEADER, "little") + encoded + data[_HEADER + length :]


def _pickles(folder: Path, state: Mapping[str, Any]) -> st.SearchStrategy[bytes]:
    whole = _saved(state)
    evil = Malicious(folder / CANARY)
    contents = (evil, [evil], dict(state) | {"x": evil}, torch.zeros(2).expand(2**40, 2), 3, None)
    odd = [_saved(content) for content in contents]
    return damaged(whole) | st.sampled_from([*odd, pickle.dumps(evil), _bomb("archive/data.pkl")])


def _saved(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def _bomb(name: str, start: bytes = b"", size: int = 2**27) -> bytes:
    """A zip that unpacks to a thousand times its size."""
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open(name, "w") as f,
    ):
        f.write(start)
        for _ in range(size // 2**20):
            f.write(bytes(2**20))
    return buffer.getvalue()


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
        Surface("images, npz", _npz(folder), read_as(".npz")),
        Surface("images, tar", tars(), read_as(".tar")),
    ]


def _npz(folder: Path) -> st.SearchStrategy[bytes]:
    whole = _archive(images=np.zeros((6, 8, 8, 1), np.uint8), labels=np.arange(6) % 5)
    evil = np.array([Malicious(folder / CANARY)], dtype=object)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": (2**24, 8, 8, 1)}
    )
    fixed = [
        _archive(images=evil),
        _archive(images=np.zeros((6, 8, 8, 1), np.uint8), labels=evil),
        _bomb("images.npy", header.getvalue()),
    ]
    return damaged(whole) | st.sampled_from(fixed) | _arrays() | _headers()


def _archive(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


@st.composite
def _arrays(draw: st.DrawFn) -> bytes:
    """Arrays of other types, shapes and names."""
    types = ("u1", "i1", "f4", "f8", "?", "c16", "U3", "S2", "M8[s]", "V4", "i8")
    sizes = st.lists(st.sampled_from((0, 1, 5, 8)), max_size=5)
    images = np.zeros(draw(st.just([5, 8, 8, 1]) | sizes), draw(st.sampled_from(types)))
    labels = np.zeros(draw(st.just([5]) | sizes), draw(st.sampled_from(types)))
    if labels.dtype.kind in "if":
        labels += draw(st.integers(-2, 9))
    name = draw(st.sampled_from(("images", "labels", "../../images", "x")))
    return _archive(
        **{"images": images, "labels": labels, name: draw(st.sampled_from((images, labels)))}
    )


@st.composite
def _headers(draw: st.DrawFn) -> bytes:
    """An array whose header promises more, or something else, than there is."""
    shape = draw(st.lists(st.sampled_from((-1, 0, 1, 8, 2**20, 2**40, 2**62)), max_size=5))
    kind = draw(st.sampled_from(("|u1", "<f8", "|O", "<U99999", "[('a', '<f8')]", "x", "<i3")))
    text = f"{{'descr': {kind!r}, 'fortran_order': False, 'shape': {tuple(shape)}, }}\n".encode()
    array = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(64)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("images.npy", array)
    return buffer.getvalue()


@st.composite
def tars(draw: st.DrawFn) -> bytes:
    """Tars with names that lead elsewhere, members that are no files, damaged and huge images."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for _ in range(draw(st.integers(0, 5))):
            content = draw(_members())
            info = tarfile.TarInfo(draw(_names()))
            info.type = draw(st.sampled_from((tarfile.REGTYPE,) * 6 + _KINDS))
            info.linkname = draw(st.sampled_from(("/etc/passwd", "../../..", "0/a.png")))
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return draw(st.just(buffer.getvalue()) | damaged(buffer.getvalue()))


_KINDS = (
    tarfile.SYMTYPE,
    tarfile.LNKTYPE,
    tarfile.CHRTYPE,
    tarfile.FIFOTYPE,
    tarfile.GNUTYPE_SPARSE,
)


def _names() -> st.SearchStrategy[str]:
    fixed = ("0/a.png", "1/b.png", "c.png", "labels.csv", "../../up.png", "/etc/x.png", "0/" * 99)
    letters = st.characters(exclude_characters="\0", exclude_categories=["Cs"])
    return st.sampled_from(fixed) | st.text(letters, max_size=9)


def _members() -> st.SearchStrategy[bytes]:
    png = _picture("PNG", (8, 8))
    tables = (
        "file,label\nc.png,0\n",
        "file,label\n../../up.png,1\n",
        "file,label\nc.png," + "9" * 5000,
    )
    return st.one_of(
        st.just(png),
        damaged(png),
        damaged(_picture("GIF", (9, 7))),
        damaged(_picture("TIFF", (9, 7))),
        st.sampled_from([table.encode() for table in tables]),
        st.sampled_from([_huge_png(), _picture("PNG", (1, 3000)), b"%!PS\n", b""]),
        st.binary(max_size=40),
    )


def _picture(kind: str, size: tuple[int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", size).save(buffer, kind)
    return buffer.getvalue()


def _huge_png() -> bytes:
    """A few bytes that call themselves 30,000 x 30,000 pixels."""
    data = bytearray(_picture("PNG", (8, 8)))
    data[16:24] = (30_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


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
