"""Remedies of errors about images and labels, each done as it says."""

from __future__ import annotations

import io
import sys
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dreamquant.evaluation import files
from dreamquant.evaluation.data import open_images
from dreamquant.evaluation.pictures import open_pictures
from dreamquant.networks.spec import InputSpec
from remedies import Trial, advises

RGB = InputSpec((3, 4, 4), (0.0,) * 3, (1.0,) * 3, 3)
MAP = InputSpec((5, 4), (0.0,), (1.0,), 3)
FIVE = InputSpec((5, 4, 4), (0.0,) * 5, (1.0,) * 5, 3)
MASKS = replace(RGB, task="segmentation")
BOXES = replace(RGB, task="regression")
LABELS = replace(RGB, task="multi-label")
PIXELS = np.zeros((2, 4, 4, 3), np.uint8)
FEATURES = np.zeros((2, 5, 4), np.float32)


def _boxes(outputs: Any) -> Any:
    return outputs


def arrays(spec: InputSpec, /, **given: Any) -> Any:
    """Opens an ``.npz`` of these arrays."""

    def go(folder: Path) -> None:
        np.savez(folder / "images.npz", **given)
        read(folder / "images.npz", spec)

    return go


def tree(spec: InputSpec, /, **given: bytes) -> Any:
    """Opens a folder of these files; ``__`` in a name stands for ``/``, and ``_`` for a dot."""

    def go(folder: Path) -> None:
        root = folder / "mended" if (folder / "broken").exists() else folder / "broken"
        for name, content in given.items():
            path = root / name.replace("__", "/").replace("_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        read(root, spec)

    return go


def read(source: object, spec: InputSpec, **options: Any) -> None:
    """All images and what is true of them."""
    boxes = _boxes if spec.task == "regression" else None
    images = open_images(str(source), spec, boxes=boxes, **options)
    assert len(images)
    list(images.batches(2))
    if images.truth is not None:
        list(images.truth[: len(images)])


def png(size: int = 4, value: int = 0, mode: str = "RGB") -> bytes:
    """A picture of one colour."""
    buffer = io.BytesIO()
    Image.new(mode, (size, size), (value,) * 3 if mode == "RGB" else value).save(buffer, "PNG")
    return buffer.getvalue()


def packed(folder: Path, mode: str = "w", count: int = 2) -> Path:
    """A tar of pictures."""
    path = folder / f"images{len(list(folder.iterdir()))}.tar"
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for index in range(count):
            member = tarfile.TarInfo(f"{index}.png")
            member.size = len(png())
            tar.addfile(member, io.BytesIO(png()))
    return path


def _damaged(folder: Path) -> None:
    (folder / "images.npz").write_bytes(b"damaged")
    read(folder / "images.npz", RGB)


def _text(folder: Path) -> None:
    (folder / "images.txt").write_text("0.png")
    read(folder / "images.txt", RGB)


def _empty(folder: Path) -> None:
    (folder / "empty").mkdir()
    open_pictures(folder / "empty", RGB)


GOOD = arrays(RGB, images=PIXELS, labels=np.arange(2))
PICTURES = tree(RGB, a_png=png(), b_png=png())
TRIALS = [
    # ------------------------------------------------------------------------- arrays
    Trial(
        "evaluation/arrays.py:read_npz: the .npz contains",
        arrays(RGB, x=PIXELS),
        "numpy.savez(file, images=..., labels=...)",
        GOOD,
    ),
    Trial(
        "evaluation/arrays.py:_load",
        _damaged,
        "save it again with numpy.savez(file, images=..., labels=...)",
        GOOD,
    ),
    Trial(
        "evaluation/arrays.py:_pixels: images are pixels",
        arrays(MAP, images=PIXELS),
        "or features=... if not images",
        arrays(MAP, features=FEATURES),
    ),
    Trial(
        "evaluation/arrays.py:_pixels: not uint8",
        arrays(RGB, images=PIXELS.astype(np.float32)),
        "save raw pixels 0..255 as uint8 (N, 4, 4, 3)",
        arrays(RGB, images=PIXELS),
    ),
    Trial(
        "evaluation/arrays.py:_pixels: images have shape",
        arrays(RGB, images=PIXELS[:, :3]),
        "save them as uint8 (N, 4, 4, 3)",
        arrays(RGB, images=PIXELS),
    ),
    Trial(
        "evaluation/arrays.py:_features: not float",
        arrays(MAP, features=FEATURES > 0),
        "save them as float32",
        arrays(MAP, features=(FEATURES > 0).astype(np.float32)),
    ),
    Trial(
        "evaluation/arrays.py:_features: features have shape",
        arrays(MAP, features=FEATURES[:, :4]),
        "save them as float32 (N, 5, 4)",
        arrays(MAP, features=FEATURES),
    ),
    Trial(
        "evaluation/arrays.py:_features: NaN",
        arrays(MAP, features=FEATURES + np.nan),
        "save finite numbers",
        arrays(MAP, features=np.nan_to_num(FEATURES + np.nan)),
    ),
    Trial(
        "evaluation/arrays.py:_dequantized",
        arrays(MAP, features=np.zeros((2, 5, 4), np.int8)),
        "save float features, or both: (q - zero_point) * scale",
        arrays(MAP, features=np.zeros((2, 5, 4), np.int8), scale=np.array(1), zero_point=[0]),
    ),
    Trial(
        "evaluation/arrays.py:_check_labels: not integers",
        arrays(RGB, images=PIXELS, labels=np.array([0.0, 1.0])),
        "save class numbers",
        GOOD,
    ),
    Trial(
        "evaluation/arrays.py:_check_labels: labels have shape",
        arrays(RGB, images=PIXELS, labels=np.array([0])),
        "save one label per image",
        GOOD,
    ),
    Trial(
        "evaluation/arrays.py:_check_labels: labels have shape",
        arrays(MASKS, images=PIXELS, labels=np.array([0, 1])),
        "save (2, 4, 4)",
        arrays(MASKS, images=PIXELS, labels=np.zeros((2, 4, 4), np.uint8)),
    ),
    # ---------------------------------------------------------------------- any form
    Trial("evaluation/data.py:open_images: not known", _text, "a folder", PICTURES),
    Trial(
        "evaluation/data.py:open_images: do not exist",
        lambda folder: read(folder / "absent", RGB),
        ".npz",
        GOOD,
    ),
    Trial(
        "evaluation/data.py:_check_positive",
        lambda folder: read(folder, RGB, limit=0),
        "give a number from 1 up",
        lambda folder: (PICTURES(folder), read(folder / "broken", RGB, limit=1)),
    ),
    Trial(
        "evaluation/data.py:_check_pictures",
        tree(FIVE, a_png=png()),
        "numpy.savez(file, features=..., labels=...)",
        arrays(FIVE, features=np.zeros((2, 5, 4, 4), np.float32), labels=np.arange(2)),
    ),
    Trial("evaluation/data.py:_check_not_empty", lambda f: read(f, RGB), "with images", PICTURES),
    Trial(
        "evaluation/data.py:_label_tensor",
        arrays(RGB, images=PIXELS, labels=np.array([0, 9])),
        "give images of the classes that the network was trained on",
        GOOD,
    ),
    # ------------------------------------------------------------------ files and tars
    Trial(
        "evaluation/decoding.py:_reading: the image cannot be read: its format is not known",
        tree(RGB, a_png=b"text", b_png=png()),
        "replace or remove it",
        tree(RGB, b_png=png()),
    ),
    Trial(
        "evaluation/decoding.py:_reading: the image cannot be read: ",
        tree(RGB, a_png=png(64, 7)[:60], b_png=png()),
        "replace or remove it",
        PICTURES,
    ),
    Trial(
        "evaluation/files.py:tar_files: cannot be read",
        lambda folder: read(packed(folder, "w:gz"), RGB),
        "a compressed tar must be decompressed first",
        lambda folder: read(packed(folder), RGB),
    ),
    Trial(
        "evaluation/labels.py:_ordered",
        tree(RGB, a_png=png(), cat__b_png=png(), dog__c_png=png(), ape__d_png=png()),
        "move each of them into its class folder",
        tree(RGB, cat__a_png=png(), cat__b_png=png(), dog__c_png=png(), ape__d_png=png()),
    ),
    Trial(
        "evaluation/labels.py:_by_table: is not a table of file,label:",
        tree(RGB, a_png=png(), labels_csv=b"name,class\na.png,1\n"),
        "write the header line file,label and then one image and class number per line",
        tree(RGB, a_png=png(), labels_csv=b"file,label\na.png,1\n"),
    ),
    Trial(
        "evaluation/labels.py:_by_table: lists",
        tree(RGB, sub__a_png=png(), b_png=png(), labels_csv=b"file,label\na.png,1\nb.png,0\n"),
        "list every image once, with its path relative to the table",
        tree(RGB, sub__a_png=png(), b_png=png(), labels_csv=b"file,label\nsub/a.png,1\nb.png,0\n"),
    ),
    Trial(
        "evaluation/labels.py:_folder_labels",
        tree(RGB, cat__a_png=png(), dog__b_png=png()),
        "or class numbers",
        tree(RGB, **{"0__a_png": png(), "2__b_png": png()}),
    ),
    Trial(
        "evaluation/labels.py:_folder_labels",
        tree(RGB, cat__a_png=png(), dog__b_png=png()),
        "name the class folders after the network's classes",
        tree(replace(RGB, class_names=("cat", "ape", "dog")), cat__a_png=png(), dog__b_png=png()),
    ),
    Trial(
        "evaluation/pictures.py:open_pictures",
        lambda folder: open_pictures(folder / "absent", RGB),
        "a folder",
        lambda folder: (PICTURES(folder), open_pictures(folder / "broken", RGB)),
    ),
    Trial(
        "evaluation/pictures.py:_of_files: 1 or 3 channels",
        lambda folder: open_pictures(folder, FIVE),
        "numpy.savez(file, features=...)",
        lambda folder: (
            np.savez(folder / "a.npz", features=np.zeros((2, 5, 4, 4), np.float32)),
            open_pictures(folder / "a.npz", FIVE),
        ),
    ),
    Trial(
        "evaluation/pictures.py:_of_files: no images here",
        _empty,
        "a folder",
        lambda folder: (PICTURES(folder), open_pictures(folder / "broken", RGB)),
    ),
    # ------------------------------------------------------------- other tasks' truths
    Trial(
        "evaluation/truth.py:read",
        tree(MASKS, a_png=png(), masks__a_png=png(4, 9, "L")),
        "number classes from 0, and mark ignored pixels by 255",
        tree(
            MASKS,
            a_png=png(),
            b_png=png(),
            masks__a_png=png(4, 2, "L"),
            masks__b_png=png(4, 255, "L"),
        ),
    ),
    Trial(
        "evaluation/truth.py:_boxes",
        tree(BOXES, a_png=png(), labels__a_txt=b"3 .5 .5 .1 .1\n"),
        "number the classes from 0",
        tree(BOXES, a_png=png(), labels__a_txt=b"2 .5 .5 .1 .1\n"),
    ),
    Trial(
        "evaluation/truth.py:_table_of_boxes",
        tree(BOXES, a_png=png(), boxes_csv=b"file,class,cx,cy,w,h\nb.png,0,.5,.5,.1,.1\n"),
        "list existing files",
        tree(BOXES, a_png=png(), boxes_csv=b"file,class,cx,cy,w,h\na.png,0,.5,.5,.1,.1\n"),
    ),
    Trial(
        "evaluation/truth.py:_yolo",
        tree(BOXES, a_png=png(), labels__a_txt=b"cat .5 .5\n"),
        "write one object per line: class cx cy w h",
        tree(BOXES, a_png=png(), labels__a_txt=b"0 .5 .5 .1 .1\n"),
    ),
    Trial(
        "evaluation/truth.py:_labels",
        tree(LABELS, a_png=png(), labels_csv=b"file,label\na.png,7\n"),
        "list existing images, with labels from 0 to 2",
        tree(LABELS, a_png=png(), labels_csv=b"file,label\na.png,2\na.png,0\n"),
    ),
    Trial(
        "evaluation/truth.py:_read_table",
        tree(LABELS, a_png=png(), labels_csv=b"name,class\na.png,2\n"),
        "write the header line file,label and then one line for each entry",
        tree(LABELS, a_png=png(), labels_csv=b"file,label\na.png,2\n"),
    ),
]


@pytest.mark.parametrize("trial", TRIALS, ids=lambda trial: trial.site)
def test_what_a_remedy_advises_works(trial: Trial, tmp_path: Path) -> None:
    trial.run(tmp_path)


def test_a_member_that_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_FILE_BYTES", len(png()))
    read(packed(tmp_path), RGB)
    monkeypatch.setattr(files, "MAX_FILE_BYTES", len(png()) - 1)
    with advises("evaluation/files.py:tar_files: a member has", "leave the file out"):
        read(packed(tmp_path), RGB)


def test_data_sets_of_torchvision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torchvision")
    grey = InputSpec((1, 28, 28), (0.0,), (1.0,), 10)
    raw = tmp_path / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    sides = np.array([2, 28, 28], ">i4").tobytes()
    (raw / "t10k-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03" + sides + bytes(2 * 784))
    for name in ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"):
        (raw / name).touch()
    labels = np.array([2], ">i4").tobytes() + bytes([0, 1])
    (raw / "t10k-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01" + labels)
    with advises("networks/torchvision_data.py:open_test_split: the torchvision data set", "MNIST"):
        read("torchvision:Mnist", grey)
    with advises(
        "networks/torchvision_data.py:open_test_split: torchvision cannot open",
        "name its folder: torchvision:MNIST:FOLDER, or TORCHVISION_ROOT",
    ):
        read(f"torchvision:MNIST:{tmp_path}", grey)
    read(f"torchvision:MNIST:{tmp_path / 'data'}", grey)
    monkeypatch.setenv("TORCHVISION_ROOT", str(tmp_path / "data"))
    read("torchvision:MNIST", grey)
    with (
        pytest.MonkeyPatch.context() as patch,
        advises(
            "networks/torchvision_data.py:open_test_split: torchvision cannot be imported",
            "pip install 'dreamquant[zoo]'",
        ),
    ):
        patch.setitem(sys.modules, "torchvision", None)
        read("torchvision:MNIST", grey)
    read("torchvision:MNIST", grey)  # it is installed
