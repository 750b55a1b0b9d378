"""Remedies of errors about result folders, pools and exported files, each done as it says."""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import dreamquant
import tiny
from dreamquant import InputSpec
from dreamquant.jobs.dream import dream
from dreamquant.report.field import read_field
from dreamquant.report.read import read_record
from dreamquant.report.render import render
from dreamquant.results.files import make_folder, read_json, write_bytes
from dreamquant.results.folder import require_no_result
from dreamquant.results.lock import alone_in
from dreamquant.results.manifest import read_manifest
from dreamquant.results.packing import pack, unpack
from dreamquant.results.pool import POOL, open_pool, write_shard
from dreamquant.results.reopen import open_result, reopen_teacher
from remedies import Trial, advises, command, quantized
from tiny_runs import tiny_network, tiny_teacher

FILE = """
from torch import nn

def make():
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5),
    )
"""
EXPORT = ("onnx", "onnxscript", "onnxruntime")


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A result of a network in a file, exported where that is possible."""
    folder = tmp_path_factory.mktemp("result")
    (folder / "net.py").write_text(FILE)
    run(folder)
    return folder


def run(folder: Path, out: str = "out", **options: Any) -> dreamquant.Result:
    """A run of a moment on the network in the folder's file."""
    torch.manual_seed(0)
    if not (folder / "weights.pt").exists():
        namespace: dict[str, Any] = {}
        exec(FILE, namespace)
        torch.save(namespace["make"]().state_dict(), folder / "weights.pt")
    network = dreamquant.load_network(
        f"{folder / 'net.py'}:make",
        weights=folder / "weights.pt",
        shape=(1, 8, 8),
        mean=(0.5,),
        std=(0.25,),
    )
    given: dict[str, Any] = {"method": "squant", "device": "cpu", "quiet": True}
    return dreamquant.quantize(network, "w8a8", out=folder / out, **given | options)


@pytest.fixture
def copied(result: Path, tmp_path: Path) -> Path:
    """The same in a folder of its own."""
    shutil.copytree(result, tmp_path / "copy")
    return tmp_path / "copy"


def changed(folder: Path, **sections: Any) -> None:
    """Other sections in the manifest."""
    path = folder / "out" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | sections))


def spoiled(path: Path) -> None:
    """One byte of a file is another."""
    content = bytearray(path.read_bytes())
    content[-10] ^= 1
    path.write_bytes(content)


def again(folder: Path) -> None:
    """Quantized again, into another folder."""
    run(folder, "again")
    open_result(folder / "again")
    render(read_record(folder / "again"))


def both(*actions: Callable[[Path], Any]) -> Callable[[Path], None]:
    """One after the other."""

    def go(folder: Path) -> None:
        for action in actions:
            action(folder)

    return go


def opened(folder: Path) -> None:
    """The result in the folder."""
    open_result(folder / "out")


def damaged(**sections: Any) -> Callable[[Path], None]:
    """Opened and shown with other sections."""

    def go(folder: Path) -> None:
        changed(folder, **sections)
        opened(folder)

    return go


def shown(folder: Path) -> None:
    """A report of a damaged record."""
    changed(folder, coverage={})
    render(read_record(folder / "out"))


def cut(folder: Path) -> None:
    """A manifest of which half is there."""
    (folder / "out" / "manifest.json").write_text("{")
    read_json(folder / "out" / "manifest.json")


def other_student(folder: Path) -> None:
    """The student's file is changed."""
    spoiled(folder / "out" / "student.safetensors")
    opened(folder)


def other_code(folder: Path) -> None:
    """Opened with the code of another network."""
    namespace: dict[str, Any] = {}
    exec(FILE.replace("6", "7"), namespace)
    dreamquant.load(folder / "out", network=namespace["make"]())


def own_code(folder: Path) -> None:
    """Opened with the code of the network it was made from."""
    namespace: dict[str, Any] = {}
    exec(FILE, namespace)
    dreamquant.load(folder / "out", network=namespace["make"]())


def in_memory(folder: Path) -> None:
    """A result of a module in memory."""
    quantized(folder, out="memory")
    dreamquant.load(folder / "memory")


def measured(*more: str) -> Callable[[Path], None]:
    """The student measured by the command line."""

    def go(folder: Path) -> None:
        pixels = np.zeros((4, 8, 8, 1), np.uint8)
        np.savez(folder / "images.npz", images=pixels)
        np.savez(folder / "labelled.npz", images=pixels, labels=np.arange(4))
        command(*("evaluate", *more[:1]) if not more else ("evaluate", *_here(folder, more)))

    return go


def _here(folder: Path, words: tuple[str, ...]) -> list[str]:
    return [word.replace("HERE", str(folder)) for word in words]


NETWORK = (
    "HERE/net.py:make",
    "--weights",
    "HERE/weights.pt",
    "--input",
    "1x8x8",
    "--mean",
    "0.5",
    "--std",
    "0.25",
)


def other_weights(folder: Path) -> None:
    """Weights of another teacher."""
    namespace: dict[str, Any] = {}
    exec(FILE, namespace)
    torch.save(namespace["make"]().state_dict(), folder / "other.pt")
    reopen_teacher(read_manifest(folder / "out"), folder / "other.pt")


def blocked(folder: Path) -> None:
    """A folder cannot be made where a file is."""
    (folder / "file").touch()
    make_folder(folder / "file" / "out")


def pool(folder: Path, method: str = "procedural", **options: Any) -> Path:
    """A small pool."""
    place = folder / "pool"
    dream(tiny_teacher(), method, out=place, count=8, device="cpu", quiet=True, **options)
    return place


def spoiled_pool(folder: Path) -> None:
    """A pool with a damaged shard."""
    spoiled(next(pool(folder).glob("*.safetensors")))
    open_pool(folder / "pool", tiny.INPUT)


def new_pool(folder: Path) -> None:
    """Made anew."""
    shutil.rmtree(folder / "pool")
    open_pool(pool(folder), tiny.INPUT)


def halved_pool(folder: Path) -> None:
    """A pool of which the manifest is cut off."""
    (pool(folder) / POOL).write_text("{")
    open_pool(folder / "pool", tiny.INPUT)


def of_another_size(folder: Path) -> None:
    """A pool for a network of larger images."""
    open_pool(pool(folder), replace(tiny.INPUT, shape=(1, 9, 9)))


def of_this_size(folder: Path) -> None:
    """A pool for this network."""
    large = tiny_teacher(spec=replace(tiny.INPUT, shape=(1, 9, 9)))
    dream(large, "procedural", out=folder / "large", count=8, device="cpu", quiet=True)
    open_pool(folder / "large", replace(tiny.INPUT, shape=(1, 9, 9)))


def not_finite(folder: Path) -> None:
    """Images that are no numbers."""
    images = torch.full((4, 1, 8, 8), torch.nan)
    write_shard(folder, 0, images, torch.zeros(4, dtype=torch.int64), tiny_network())


TRIALS = [
    # ------------------------------------------------------------------------------ results
    Trial(
        "results/manifest.py:read_manifest: not a result",
        lambda f: open_result(f),
        "give the --out folder of a finished run",
        opened,
    ),
    Trial(
        "results/manifest.py:_damaged",
        damaged(network={}),
        "quantize again or restore a copy",
        again,
    ),
    Trial("results/files.py:_damaged", cut, "quantize again or restore a copy", again),
    Trial(
        "results/files.py:_unreadable",
        lambda f: read_json(f / "absent"),
        "check the path",
        lambda f: read_json(f / "out" / "manifest.json"),
    ),
    Trial(
        "results/files.py:writing",
        lambda f: write_bytes(f / "absent" / "a", b""),
        "check that the folder exists",
        lambda f: ((f / "absent").mkdir(), write_bytes(f / "absent" / "a", b"")),
    ),
    Trial(
        "results/files.py:make_folder",
        blocked,
        "choose a folder that you may write to",
        lambda f: make_folder(f / "folder" / "out"),
    ),
    Trial(
        "results/packing.py:unpack",
        lambda _: unpack(torch.zeros(3, dtype=torch.uint8), 4, (8,)),
        "quantize again or restore a copy",
        both(again, lambda _: unpack(pack(torch.ones(8, dtype=torch.uint8), 4), 4, (8,))),
    ),
    Trial(
        "results/reopen.py:_read_student", other_student, "quantize again or restore a copy", again
    ),
    Trial(
        "results/reopen.py:_rebuild",
        in_memory,
        "pass that architecture: dreamquant.load(folder, network=module)",
        lambda f: dreamquant.load(f / "memory", network=tiny_network()),
    ),
    Trial(
        "results/reopen.py:_converted",
        lambda f: dreamquant.load(f / "out", network=nn.Flatten()),
        "give the one the result was made from",
        own_code,
    ),
    Trial(
        "results/student.py:_require_fit",
        other_code,
        "load it with the code of the network that it was made from",
        own_code,
    ),
    Trial(
        "results/reopen.py:reopen_teacher",
        other_weights,
        "give --weights FILE with the teacher's weights",
        lambda f: reopen_teacher(read_manifest(f / "out"), f / "weights.pt"),
    ),
    Trial(
        "results/folder.py:require_no_result",
        run,
        "give another folder, or delete this one",
        both(again, lambda f: shutil.rmtree(f / "out"), run),
    ),
    Trial("report/read.py:damage_named", shown, "quantize again or restore a copy", again),
    Trial(
        "report/field.py:read_field",
        lambda f: ((f / "none").mkdir(), read_field([f / "none"])),
        "give the --out folder of a finished run",
        lambda f: read_field([f / "out"]),
    ),
    Trial(
        "cli/main.py:_saved_student",
        lambda f: measured("HERE/absent", "HERE/labelled.npz")(f),
        "give the --out folder of a finished run, or a network as `dreamquant quantize` takes it",
        both(
            measured("HERE/out", "HERE/labelled.npz"),
            measured(*NETWORK, "--data", "HERE/labelled.npz"),
        ),
    ),
    Trial(
        "cli/main.py:_nothing_to_measure",
        measured(*NETWORK, "--data", "HERE/images.npz"),
        "give labelled images, or a result and, by --weights, its teacher's weights",
        both(
            measured(*NETWORK, "--data", "HERE/labelled.npz"),
            measured("HERE/out", "HERE/images.npz", "--weights", "HERE/weights.pt"),
        ),
    ),
    # -------------------------------------------------------------------------------- pools
    Trial(
        "jobs/dream.py:_finished",
        both(pool, pool),
        "give another folder, or delete this one",
        both(lambda f: pool(f / "other"), new_pool),
    ),
    Trial(
        "jobs/dream.py:_known",
        lambda f: pool(f, "clouds"),
        "give one that `dreamquant methods` lists, or procedural",
        lambda f: (pool(f), pool(f / "other", "genie", iterations=2)),
    ),
    Trial(
        "results/pool.py:_damaged",
        spoiled_pool,
        "make the pool again with `dreamquant dream`, or restore a copy",
        new_pool,
    ),
    Trial(
        "results/pool.py:_manifest: make the pool again",
        halved_pool,
        "make the pool again with `dreamquant dream`, or restore a copy",
        new_pool,
    ),
    Trial(
        "results/pool.py:open_pool",
        of_another_size,
        "make a pool for this network with `dreamquant dream`",
        of_this_size,
    ),
    Trial(
        "results/pool.py:write_shard",
        not_finite,
        "or a method whose images are clamped, such as minutes",
        lambda f: pool(f, "minutes", iterations=2),
    ),
]


@pytest.mark.parametrize("trial", TRIALS, ids=lambda trial: trial.site)
def test_what_a_remedy_advises_works(trial: Trial, copied: Path) -> None:
    trial.run(copied)


@pytest.mark.parametrize("owner", ["wait until it ends", "give another folder"])
def test_a_folder_in_use(tmp_path: Path, owner: str) -> None:
    with alone_in(tmp_path / "out"):
        with advises("results/lock.py:_acquired", owner), alone_in(tmp_path / "out"):
            pytest.fail("two at once")
        with alone_in(tmp_path / "other"):
            pass
    with alone_in(tmp_path / "out"):
        require_no_result(tmp_path / "out")


# -------------------------------------------------------------------------------- exported


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A result of a network for three channels, with its file."""
    for name in EXPORT:
        pytest.importorskip(name)
    folder = tmp_path_factory.mktemp("exported")
    (folder / "net.py").write_text(FILE)
    run(folder)
    command("export", folder / "out", "--target", "int8box")
    return folder


@pytest.fixture
def own(exported: Path, tmp_path: Path) -> Path:
    """The same in a folder of its own, with images."""
    shutil.copytree(exported, tmp_path / "copy")
    Image.new("L", (8, 8)).save(tmp_path / "copy" / "a.png")
    (tmp_path / "copy" / "pictures").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "copy" / "pictures" / "b.png")
    values = np.zeros((4, 8, 8, 1), np.uint8)
    np.savez(tmp_path / "copy" / "images.npz", images=values, labels=np.arange(4))
    return tmp_path / "copy"


BOX = "HERE/out/model.int8box.onnx"


def says(*words: str) -> Callable[[Path], None]:
    """A command line."""
    return lambda folder: command(*_here(folder, words))


def without_metadata(folder: Path) -> None:
    """The file of another tool."""
    onnx = importlib.import_module("onnx")
    model = onnx.load(folder / "out" / "model.int8box.onnx")
    del model.metadata_props[:]
    onnx.save(model, folder / "other.onnx")
    says("evaluate", "HERE/other.onnx", "HERE/images.npz")(folder)


def in_float(folder: Path) -> None:
    """A file of another tool, with what it lacks."""
    namespace: dict[str, Any] = {}
    exec(FILE, namespace)
    example, path = (torch.zeros(1, 1, 8, 8),), folder / "float.onnx"
    torch.onnx.export(namespace["make"]().eval(), example, path, dynamo=True, verbose=False)
    words = ("HERE/float.onnx", "HERE/images.npz", "--mean", "0.5", "--std", "0.25")
    says("evaluate", *words)(folder)


def with_other(key: str, value: str) -> Callable[[Path], None]:
    """A file with something else in its metadata."""

    def go(folder: Path) -> None:
        onnx = importlib.import_module("onnx")
        model = onnx.load(folder / "out" / "model.int8box.onnx")
        (told,) = [entry for entry in model.metadata_props if entry.key == f"dreamquant.{key}"]
        told.value = value or told.value.replace("[1, 8, 8]", "[1, 9, 9]")
        onnx.save(model, folder / "other.onnx")
        values = np.zeros((4, 9, 9, 1), np.uint8)
        np.savez(folder / "nine.npz", images=values, labels=np.arange(4))
        says("evaluate", "HERE/other.onnx", "HERE/nine.npz")(folder)

    return go


def exported_again(folder: Path) -> None:
    """Exported again, and measured."""
    says("export", "HERE/out", "--target", "int8box", "--to", "HERE/again")(folder)
    says("evaluate", "HERE/again/model.int8box.onnx", "HERE/images.npz")(folder)


def tampered(folder: Path) -> None:
    """A byte of the file is another."""
    spoiled(folder / "out" / "model.int8box.onnx")
    says("evaluate", BOX, "HERE/images.npz")(folder)


def no_whole_file(folder: Path) -> None:
    """A file of which the beginning is there."""
    (folder / "half.onnx").write_bytes((folder / "out/model.int8box.onnx").read_bytes()[:99])
    says("evaluate", "HERE/half.onnx", "HERE/images.npz")(folder)


def of_features(folder: Path) -> None:
    """Pictures for a network of five channels."""
    from dreamquant.export.predict import read_pictures

    read_pictures([folder / "a.png"], InputSpec((5, 8, 8), (0.0,) * 5, (1.0,) * 5, 4))


def another_result(folder: Path) -> None:
    """Exported into the folder of another run."""
    run(folder, "second", seed=1, method="nagel")
    says("export", "HERE/out", "--target", "int8box", "--to", "HERE/second")(folder)


EXPORTED = [
    Trial(
        "cli/reading.py:refuse",
        says("evaluate", "HERE/out", "HERE/images.npz", "--classes", "5"),
        "leave these options out",
        says("evaluate", "HERE/out", "HERE/images.npz"),
    ),
    Trial(
        "export/job.py:export_result",
        lambda f: dreamquant.export_result(f / "out", ["int8"]),  # type: ignore[list-item]
        "int8box",
        says("export", "HERE/out", "--target", "int8box"),
    ),
    Trial(
        "export/job.py:_folder: no folder is given for the files",
        lambda f: dreamquant.export_result(quantized(f), ["int8box"]),
        "give to=FOLDER",
        lambda f: dreamquant.export_result(quantized(f), ["int8box"], to=f / "to"),
    ),
    Trial(
        "export/job.py:_folder: contains another result",
        another_result,
        "give another folder",
        exported_again,
    ),
    Trial(
        "export/metadata.py:read: the file does not describe its input",
        without_metadata,
        "`dreamquant evaluate` takes others, in float, with --mean and --std",
        both(in_float, exported_again),
    ),
    Trial(
        "export/metadata.py:read: damaged",
        with_other("input", "[]"),
        "export it again",
        exported_again,
    ),
    Trial("export/runtime.py:running", with_other("input", ""), "export it again", exported_again),
    Trial(
        "export/runtime.py:read_whole: cannot be read",
        says("evaluate", "HERE/absent.onnx", "HERE/images.npz"),
        "check the path",
        says("evaluate", BOX, "HERE/images.npz"),
    ),
    Trial(
        "export/runtime.py:read_whole: checksum",
        tampered,
        "export it again or restore a copy",
        exported_again,
    ),
    Trial(
        "export/runtime.py:properties_of",
        no_whole_file,
        "export it again or restore a copy",
        exported_again,
    ),
    Trial(
        "export/benchmark.py:benchmark",
        says("benchmark", BOX, "--runs", "0"),
        "give 1 or more",
        says("benchmark", BOX, "--runs", "1"),
    ),
    Trial(
        "export/predict.py:predict",
        says("predict", BOX, "HERE/a.png", "--top", "0"),
        "give 1 or more",
        says("predict", BOX, "HERE/a.png", "--top", "1"),
    ),
    Trial(
        "export/predict.py:read_pictures",
        says("predict", BOX, "HERE/out"),
        "give image files, or folders of them",
        both(says("predict", BOX, "HERE/a.png"), says("predict", BOX, "HERE/pictures")),
    ),
    Trial(
        "export/predict.py:_read: the image does not exist",
        says("predict", BOX, "HERE/absent.png"),
        "check the path",
        says("predict", BOX, "HERE/a.png"),
    ),
    Trial(
        "export/predict.py:_read: 1 or 3 channels",
        of_features,
        "give an .npz to `dreamquant evaluate`",
        says("evaluate", BOX, "HERE/images.npz"),
    ),
]


@pytest.mark.parametrize("trial", EXPORTED, ids=lambda trial: trial.site)
def test_what_a_remedy_for_files_advises_works(trial: Trial, own: Path) -> None:
    trial.run(own)


def test_what_files_need(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "onnxscript", None)
        with advises("export/parts.py:part", "pip install 'dreamquant[export]'"):
            says("export", "HERE/out")(own)
    exported_again(own)


def test_a_picture_needs_what_draws_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dreamquant.diagnostics.figure import require_matplotlib

    pytest.importorskip("matplotlib")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "matplotlib.figure", None)
        with advises(
            "diagnostics/figure.py:require_matplotlib", "pip install 'dreamquant[report]'"
        ):
            quantized(tmp_path, diagnostics=True)
    require_matplotlib("diagnostics", "--diagnostics")


def test_runtimes_that_lack_an_operation(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    verify = importlib.import_module("dreamquant.export.verify")

    def lacking(*_: Any) -> Any:
        raise RuntimeError("no operation Some")

    with monkeypatch.context() as patch:
        patch.setattr(verify, "_session", lacking)
        with advises("export/verify.py:_sessions", "update the runtimes"):
            says("export", "HERE/out", "--to", "HERE/again")(own)
    exported_again(own)
