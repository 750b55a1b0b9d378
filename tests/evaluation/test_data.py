from __future__ import annotations

import io
import os
import struct
import sys
import tarfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dreamquant.errors import DataError
from dreamquant.evaluation import files
from dreamquant.evaluation.data import EvaluationSet, open_images
from dreamquant.networks.spec import InputSpec

RGB = InputSpec((3, 4, 4), (0.5, 0.25, 0.0), (0.5, 0.25, 1.0), 3)
RAW = InputSpec((3, 4, 4), (0.0,) * 3, (1.0,) * 3, 3)
GREY = InputSpec((1, 4, 4), (0.0,), (1.0,), 3)


def flat(value: int | tuple[int, ...], size: tuple[int, int] = (4, 4), mode: str = "RGB") -> Any:
    return Image.new(
        mode, size, value if mode != "RGB" or isinstance(value, tuple) else (value,) * 3
    )


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    flat(value).save(buffer, "PNG")
    return buffer.getvalue()


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def write_tar(path: Path, members: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def values(images: EvaluationSet, size: int = 2) -> list[int]:
    """The grey value of each flat image, read through an identity normalisation."""
    return [round(255 * float(x[0, 0, 0])) for batch in images.batches(size) for x in batch]


def labels(images: EvaluationSet) -> list[int]:
    assert images.labels is not None
    assert images.labels.dtype == torch.int64
    return images.labels.tolist()


def refusal(source: Path | str, spec: InputSpec = RAW, limit: int | None = None) -> str:
    with pytest.raises(DataError) as caught:
        list(open_images(source, spec, limit=limit).batches(2))
    assert caught.value.where
    assert caught.value.remedy
    return str(caught.value)


# ------------------------------------------------------------------------------- npz


def save_npz(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def test_npz_keeps_order_labels_and_normalises(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 3), dtype=np.uint8)
    path = save_npz(tmp_path / "a.npz", images=pixels, labels=np.array([2, 0, 1, 1, 0], np.uint8))
    images = open_images(path, RGB)
    assert (len(images), labels(images)) == (5, [2, 0, 1, 1, 0])
    batches = list(images.batches(2))
    assert [len(batch) for batch in batches] == [2, 2, 1]
    seen = torch.cat(batches)
    assert seen.dtype == torch.float32
    assert seen.is_contiguous()
    by_hand = (pixels.astype(np.float64) / 255 - RGB.mean) / RGB.std
    np.testing.assert_allclose(seen.numpy(), by_hand.transpose(0, 3, 1, 2), atol=1e-6)
    assert torch.equal(torch.cat(list(images.batches(5))), seen), "a second pass gives the same"


def test_npz_is_not_changed_by_reading(tmp_path: Path) -> None:
    path = save_npz(tmp_path / "a.npz", images=np.full((2, 4, 4, 3), 7, np.uint8))
    images = open_images(path, RAW)
    for batch in images.batches(1):
        batch.zero_()
    assert values(images) == [7, 7]


def test_npz_limit_takes_the_first(tmp_path: Path) -> None:
    pixels = (
        np.arange(4, dtype=np.uint8)[:, None, None, None].repeat(4, 1).repeat(4, 2).repeat(3, 3)
    )
    path = save_npz(tmp_path / "a.npz", images=pixels, labels=np.array([0, 1, 2, 0]))
    images = open_images(path, RAW, limit=2)
    assert (values(images), labels(images)) == ([0, 1], [0, 1])
    assert len(open_images(path, RAW, limit=99)) == 4


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 99])
@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_first_is_a_prefix(tmp_path: Path, count: int, size: int) -> None:
    pixels = np.arange(5, dtype=np.uint8).reshape(5, 1, 1, 1).repeat(4, 1).repeat(4, 2)
    path = save_npz(tmp_path / "a.npz", images=pixels, labels=np.array([2, 0, 1, 1, 0]))
    whole = open_images(path, GREY)
    first = whole.first(count)
    assert len(first) == min(count, 5)
    assert values(first, size) == [0, 1, 2, 3, 4][:count]
    assert labels(first) == [2, 0, 1, 1, 0][:count]
    assert all(len(batch) for batch in first.batches(size))
    assert values(first.first(2), size) == [0, 1][:count]
    assert (values(whole), len(whole)) == ([0, 1, 2, 3, 4], 5), "the whole set stays as it is"


def test_first_reads_no_further_and_needs_no_labels(tmp_path: Path) -> None:
    write(tmp_path / "a.png", png(1))
    write(tmp_path / "b.png", png(2))
    write(tmp_path / "c.png", b"damaged")
    first = open_images(tmp_path, RAW).first(2)
    assert first.labels is None
    assert values(first) == [1, 2]


@pytest.mark.parametrize("count", [0, -1])
def test_first_refused(tmp_path: Path, count: int) -> None:
    images = open_images(save_npz(tmp_path / "a.npz", images=GOOD), RAW)
    with pytest.raises(DataError, match=f"count is {count}"):
        images.first(count)


@pytest.mark.parametrize("shape", [(2, 4, 4), (2, 4, 4, 1)])
def test_npz_grey_without_labels(tmp_path: Path, shape: tuple[int, ...]) -> None:
    images = open_images(save_npz(tmp_path / "a.npz", images=np.full(shape, 9, np.uint8)), GREY)
    assert images.labels is None
    assert next(images.batches(2)).shape == (2, 1, 4, 4)
    assert values(images) == [9, 9]


GOOD = np.zeros((2, 4, 4, 3), np.uint8)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"pictures": GOOD}, "no array named images or features"),
        ({"images": GOOD.astype(np.float32)}, "float32, not uint8"),
        ({"images": GOOD[..., :1]}, "(2, 4, 4, 1), but the network takes 3 x 4 x 4"),
        ({"images": GOOD[..., 0]}, "(2, 4, 4), but the network takes 3 x 4 x 4"),
        ({"images": GOOD.transpose(0, 3, 1, 2)}, "(2, 3, 4, 4)"),
        ({"images": GOOD[:, :3]}, "(2, 3, 4, 3)"),
        ({"images": GOOD[:0]}, "no images"),
        ({"images": np.array([{}])}, "cannot be read"),  # pickled objects are never loaded
        ({"images": GOOD, "labels": np.array([0])}, "(1,) for 2 images"),
        ({"images": GOOD, "labels": np.array([0.0, 1.0])}, "float64, not integers"),
        ({"images": GOOD, "labels": np.array([0, 104])}, "to 104, but the network has 3 classes"),
        ({"images": GOOD, "labels": np.array([-1, 2])}, "from -1 to 2"),
    ],
)
def test_npz_refusals(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    assert message in refusal(save_npz(tmp_path / "a.npz", **arrays))


MAP = InputSpec((5, 4), (2.0,), (0.5,), 3)
KEYWORD = InputSpec((1, 5, 4), (0.0,), (1.0,), 3)
FEATURES = np.random.default_rng(0).normal(size=(3, 5, 4))


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_features_of_any_rank_are_no_pixels(tmp_path: Path, kind: type) -> None:
    given = FEATURES.astype(kind)
    path = save_npz(tmp_path / "a.npz", features=given, labels=np.array([0, 1, 2]))
    images = open_images(path, MAP)
    (seen,) = images.batches(10)
    assert seen.dtype == torch.float32
    np.testing.assert_allclose(seen.numpy(), (given.astype(np.float32) - 2) / 0.5, rtol=1e-6)
    assert labels(images) == [0, 1, 2]
    assert [len(batch) for batch in images.batches(2)] == [2, 1]
    path = save_npz(tmp_path / "b.npz", features=given[:, None])
    assert next(open_images(path, KEYWORD).batches(3)).shape == (3, 1, 5, 4)


@pytest.mark.parametrize("name", ["features", "features_int8"])
def test_quantized_features_come_with_their_scale(tmp_path: Path, name: str) -> None:
    codes = np.arange(-10, 10, dtype=np.int8).reshape(1, 5, 4)
    arrays = {name: codes, "scale": np.float32(0.5), "zero_point": np.int32(3)}
    (seen,) = open_images(save_npz(tmp_path / "a.npz", **arrays), MAP).batches(1)
    np.testing.assert_allclose(seen.numpy(), ((codes.astype(float) - 3) * 0.5 - 2) / 0.5)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"features": FEATURES, "images": GOOD}, "contains images and features"),
        ({"features": FEATURES[:, :4]}, "(3, 4, 4), but the network takes 5 x 4"),
        ({"features": FEATURES > 0}, "features are bool, not float"),
        ({"features": np.full((3, 5, 4), np.nan)}, "contain NaN or infinity"),
        ({"features": np.zeros((3, 5, 4), np.int8)}, "int8, but scale or zero_point is missing"),
        ({"images": GOOD}, "images are pixels, but the network takes 5 x 4"),
        ({"features": FEATURES[:0]}, "no images"),
    ],
)
def test_features_that_do_not_fit(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError) as e:
        open_images(save_npz(tmp_path / "a.npz", **arrays), MAP)
    assert message in str(e.value)


def test_pictures_for_a_network_of_feature_maps(tmp_path: Path) -> None:
    write(tmp_path / "0" / "x.png", png(1))
    with pytest.raises(DataError, match="takes 5 x 4") as e:
        open_images(tmp_path, MAP)
    assert "features=" in e.value.remedy


@pytest.mark.parametrize("keep", [0, 10, 100, 0.5, 0.99])
def test_npz_truncated(tmp_path: Path, keep: float) -> None:
    path = save_npz(tmp_path / "a.npz", images=GOOD)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content)) if keep < 1 else int(keep)])
    assert str(path) in refusal(path)


def test_npz_that_is_a_npy(tmp_path: Path) -> None:
    with (tmp_path / "a.npz").open("wb") as file:
        np.save(file, GOOD)
    assert "cannot be read" in refusal(tmp_path / "a.npz")


# --------------------------------------------------------------------------- folders


def test_folder_of_classes_goes_round_robin(tmp_path: Path) -> None:
    for name, value in [("b/2", 20), ("b/1", 10), ("a/1", 1), ("c/1", 100), ("c/deep/2", 200)]:
        write(tmp_path / f"{name}.png", png(value))
    write(tmp_path / "a" / "notes.txt", b"")
    write(tmp_path / "a" / "._1.png", b"left by a file browser")
    images = open_images(tmp_path, RAW)
    assert values(images) == [1, 10, 100, 20, 200]
    assert labels(images) == [0, 1, 2, 1, 2]
    first = open_images(tmp_path, RAW, limit=4)
    assert (values(first), labels(first)) == ([1, 10, 100, 20], [0, 1, 2, 1])


def test_folder_names_are_matched_to_class_names(tmp_path: Path) -> None:
    for name, value in [("cat", 1), ("ape", 2)]:
        write(tmp_path / name / "x.png", png(value))
    spec = InputSpec(RAW.shape, RAW.mean, RAW.std, 3, ("dog", "cat", "ape"))
    images = open_images(tmp_path, spec)
    assert (values(images), labels(images)) == ([2, 1], [2, 1])


def test_folder_names_as_integers(tmp_path: Path) -> None:
    for name, value in [("0", 1), ("02", 2)]:
        write(tmp_path / name / "x.png", png(value))
    images = open_images(str(tmp_path), RAW)
    assert (values(images), labels(images)) == ([1, 2], [0, 2])


def test_folder_follows_linked_classes(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere" / "x.png", png(5))
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "1").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert labels(open_images(tmp_path / "set", RAW)) == [1]


def test_folder_of_images_is_unlabelled(tmp_path: Path) -> None:
    for name, value in [("b.PNG", 2), ("a.png", 1), ("c.png", 3)]:
        write(tmp_path / name, png(value))
    images = open_images(tmp_path, RAW, limit=2)
    assert images.labels is None
    assert values(images) == [1, 2]


def test_folder_with_table(tmp_path: Path) -> None:
    write(tmp_path / "a.png", png(1))
    write(tmp_path / "b.png", png(2))
    write(tmp_path / "labels.csv", b"\xef\xbb\xbffile,label\r\nb.png,0\r\na.png,2\r\n")
    images = open_images(tmp_path, RAW)
    assert (values(images), labels(images)) == ([2, 1], [0, 2])


def test_folder_refusals(tmp_path: Path) -> None:
    assert "do not exist" in refusal(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    assert "no images" in refusal(tmp_path / "empty")
    write(tmp_path / "one.png", png(1))
    assert "form of the images is not known" in refusal(tmp_path / "one.png")
    write(tmp_path / "few" / "cat" / "x.png", png(1))
    write(tmp_path / "few" / "dog" / "x.png", png(1))
    assert "2 class folders with images, such as cat, for a network of 3" in refusal(
        tmp_path / "few"
    )
    write(tmp_path / "few" / "loose.png", png(1))
    assert "loose.png and 0 more images are not in a class folder" in refusal(tmp_path / "few")
    write(tmp_path / "numbers" / "7" / "x.png", png(1))
    assert "to 7, but the network has 3 classes" in refusal(tmp_path / "numbers")
    five = InputSpec((5, 4, 4), (0.0,) * 5, (1.0,) * 5, 3)
    assert "the network takes 5" in refusal(tmp_path / "few", five)


@pytest.mark.parametrize("limit", [0, -3])
def test_limit_refused(tmp_path: Path, limit: int) -> None:
    assert f"limit is {limit}" in refusal(tmp_path, limit=limit)


def test_batch_size_refused(tmp_path: Path) -> None:
    write(tmp_path / "x.png", png(1))
    with pytest.raises(DataError, match="batch is 0"):
        next(open_images(tmp_path, RAW).batches(0))


# ------------------------------------------------------------------------------ tars


def test_tar_of_classes(tmp_path: Path) -> None:
    members = {"./b/1.png": png(2), "./a/1.png": png(1), "./a/2.png": png(3), "./c/1.png": png(4)}
    images = open_images(write_tar(tmp_path / "a.tar", members), RAW, limit=3)
    assert (values(images), labels(images)) == ([1, 2, 4], [0, 1, 2])


def test_tar_with_a_folder_around_the_classes(tmp_path: Path) -> None:
    members = {f"data/val/{name}/x.png": png(i) for i, name in enumerate("012")}
    assert labels(open_images(write_tar(tmp_path / "a.tar", members), RAW)) == [0, 1, 2]


@pytest.mark.parametrize("around", ["", "val/"])
def test_tar_with_table(tmp_path: Path, around: str) -> None:
    table = b"file,label\nb.png,2\nsub/a.png,1\n"
    members = {"labels.csv": table, "sub/a.png": png(1), "b.png": png(2)}
    path = write_tar(tmp_path / "a.tar", {around + name: x for name, x in members.items()})
    images = open_images(path, RAW)
    assert (values(images), labels(images)) == ([2, 1], [2, 1])


def test_tar_of_images_is_unlabelled(tmp_path: Path) -> None:
    images = open_images(write_tar(tmp_path / "a.tar", {"a.png": png(3)}), RAW)
    assert images.labels is None
    assert values(images) == [3]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (b"file,label\na.png,1\n", "lists 1 files for 2 images, for example b.png"),
        (b"file,label\na.png,1\nb.png,1\nc.png,1\n", "lists 3 files for 2 images"),
        (b"file,label\na.png,1\na.png,1\nb.png,1\n", "lists 3 files for 2 images"),
        (b"file,label\na.png,1\nb.png,9\n", "to 9, but the network has 3 classes"),
        (b"file,label\na.png,1\nb.png\n", "not a table of file,label"),
        (b"file,label\na.png,cat\nb.png,1\n", "not a table of file,label"),
        (b"name,class\na.png,1\nb.png,1\n", "not a table of file,label"),
        (b"\xff\xfe\x00", "not a table of file,label"),
    ],
)
def test_table_refusals(tmp_path: Path, table: bytes, message: str) -> None:
    members = {"labels.csv": table, "a.png": png(1), "b.png": png(2)}
    assert message in refusal(write_tar(tmp_path / "a.tar", members))


def test_malicious_tar_is_harmless(tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(png(99))
    inside = {"/etc/0/x.png": png(1), "../../etc/1/x.png": png(2), f"/etc/2{secret}": png(3)}
    path = write_tar(tmp_path / "a.tar", inside)
    with tarfile.open(path, "a") as tar:
        for name, kind in [("sym", tarfile.SYMTYPE), ("hard", tarfile.LNKTYPE)]:
            link = tarfile.TarInfo(f"etc/0/{name}.png")
            link.type, link.linkname = kind, str(secret)
            tar.addfile(link)
        device = tarfile.TarInfo("etc/0/null.png")
        device.type = tarfile.CHRTYPE
        tar.addfile(device)
    before = sorted(tmp_path.rglob("*"))
    images = open_images(path, RAW)
    assert (values(images), labels(images)) == ([1, 2, 3], [0, 1, 2])
    assert sorted(tmp_path.rglob("*")) == before


def test_tar_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_tar(tmp_path / "a.tar", {"0/a.png": png(1), "1/b.png": png(2)})
    content = path.read_bytes()
    path.write_bytes(content[:600])
    assert "cannot be read" in refusal(path)
    path.write_bytes(b"")
    assert "cannot be read" in refusal(path)
    path.write_bytes(b"x" * 5000)
    assert "cannot be read" in refusal(path)
    long_name = tarfile.TarInfo("x")
    long_name.type, long_name.size = tarfile.GNUTYPE_LONGNAME, 2**70
    path.write_bytes(long_name.tobuf(tarfile.GNU_FORMAT) + content)
    assert "cannot be read" in refusal(path)
    write_tar(path, {"0/a.png": png(1)}, "w:gz")
    assert "must be decompressed first" in refusal(path)
    write_tar(path, {"notes.txt": b"hello"})
    assert "no images" in refusal(path)
    write_tar(path, {"0/a.png": png(1)})
    monkeypatch.setattr(files, "MAX_FILE_BYTES", 10)
    assert "0/a.png" in refusal(path)


# -------------------------------------------------------------------------- decoding


@pytest.mark.parametrize("content", [b"", b"junk", png(1)[:-30], b"%!PS-Adobe-3.0 EPSF-3.0\n"])
def test_unreadable_images_are_named(tmp_path: Path, content: bytes) -> None:
    write(tmp_path / "set" / "bad.png", content)
    assert str(tmp_path / "set" / "bad.png") in refusal(tmp_path / "set")
    tar = write_tar(tmp_path / "a.tar", {"bad.png": content})
    assert f"{tar}: bad.png" in refusal(tar)


def test_huge_images_are_refused(tmp_path: Path) -> None:
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    write(tmp_path / "bomb.png", png(1).replace(png(1)[16:29], header))
    assert "bomb.png" in refusal(tmp_path)
    (tmp_path / "bomb.png").unlink()
    flat(1, (1, 60_000)).save(tmp_path / "thread.png")
    assert "too elongated" in refusal(tmp_path, InputSpec((3, 64, 64), (0.0,) * 3, (1.0,) * 3, 2))


def test_modes_become_what_the_network_takes(tmp_path: Path) -> None:
    deep = Image.fromarray(np.full((4, 4), 100 * 256 + 17, np.uint16))
    pictures = {
        "a-grey.png": flat(100, mode="L"),
        "b-palette.png": flat((100, 100, 100)).convert("P"),
        "c-alpha.png": flat((100, 100, 100, 0), mode="RGBA"),
        "d-grey-alpha.png": flat((100, 30), mode="LA"),
        "e-cmyk.tif": flat((155, 155, 155, 0), mode="CMYK"),
        "f-deep.png": deep,
        "g-deep.tif": deep,
        "h-bits.png": flat(1, mode="1"),
        "i-lossless.webp": None,
    }
    for name, picture in pictures.items():
        if picture is None:
            flat(100).save(tmp_path / name, lossless=True)
        else:
            picture.save(tmp_path / name)
    expected = [100] * 7 + [255, 100]
    assert values(open_images(tmp_path, RAW)) == pytest.approx(expected, abs=2)
    assert values(open_images(tmp_path, GREY)) == pytest.approx(expected, abs=2)


def test_float_pixels_are_refused(tmp_path: Path) -> None:
    flat(0, mode="F").save(tmp_path / "x.tif")
    assert "floating-point" in refusal(tmp_path)


def ramp(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize(
    ("size", "resize", "scaled"),
    [
        ((4, 4), None, (4, 4)),  # already right
        ((9, 6), None, (6, 4)),  # short side to the crop
        ((6, 9), None, (4, 6)),
        ((2, 3), None, (4, 6)),  # too small: enlarged
        ((11, 7), 6, (9, 6)),  # floor(6 * 11 / 7), as torchvision rounds
        ((4, 4), 6, (6, 6)),
        ((8, 8), 2, (4, 4)),  # the crop would not fit: just cover it
    ],
)
def test_scaled_then_cropped(
    tmp_path: Path, size: tuple[int, int], resize: int | None, scaled: tuple[int, int]
) -> None:
    picture = ramp(*size)
    picture.save(tmp_path / "x.png")
    spec = InputSpec(RAW.shape, RAW.mean, RAW.std, 3, resize=resize)
    whole = np.asarray(picture.resize(scaled, Image.Resampling.BILINEAR))
    left, top = round((scaled[0] - 4) / 2), round((scaled[1] - 4) / 2)
    seen = next(open_images(tmp_path, spec).batches(1))[0]
    by_hand = whole[top : top + 4, left : left + 4].transpose(2, 0, 1) / 255
    np.testing.assert_allclose(seen.numpy(), by_hand, atol=1e-6)


def test_crop_that_is_not_square(tmp_path: Path) -> None:
    ramp(8, 8).save(tmp_path / "x.png")
    for shape in [(3, 4, 6), (3, 6, 4)]:
        for resize in (None, 5):
            spec = InputSpec(shape, RAW.mean, RAW.std, 3, resize=resize)
            assert next(open_images(tmp_path, spec).batches(1)).shape == (1, *shape)


# ----------------------------------------------------------------------- torchvision


class FakeSplit:
    """Two images in the manner of torchvision.datasets.CIFAR10."""

    targets = (2, 0)

    def __init__(self, root: str, train: bool) -> None:
        assert not train
        if not Path(root).is_dir():
            raise RuntimeError("Dataset not found or corrupted")

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return flat(10 + index), self.targets[index]


@pytest.fixture
def fake_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = SimpleNamespace(CIFAR10=FakeSplit)
    fake = SimpleNamespace(datasets=datasets)
    monkeypatch.setitem(sys.modules, "torchvision", fake)
    monkeypatch.delenv("TORCHVISION_ROOT", raising=False)


@pytest.mark.usefixtures("fake_torchvision")
def test_torchvision_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = open_images(f"torchvision:CIFAR10:{tmp_path}", RAW)
    assert (values(images), labels(images)) == ([10, 11], [2, 0])
    monkeypatch.chdir(tmp_path)
    assert "Dataset not found" in refusal("CIFAR10")
    monkeypatch.setenv("TORCHVISION_ROOT", str(tmp_path))
    assert values(open_images("CIFAR10", RAW, limit=1)) == [10]
    assert len(open_images("torchvision:CIFAR10", RAW)) == 2
    five = InputSpec((5, 4, 4), (0.0,) * 5, (1.0,) * 5, 3)
    assert "the network takes 5" in refusal("CIFAR10", five)


@pytest.mark.usefixtures("fake_torchvision")
def test_torchvision_refuses_unknown_names() -> None:
    assert "CIFAR100" in refusal("torchvision:Cifar")


def test_torchvision_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    assert "cannot be imported" in refusal("torchvision:CIFAR10")


def test_torchvision_itself_reports_an_absent_data_set(tmp_path: Path) -> None:
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError, OSError) as error:
        pytest.skip(f"torchvision is not usable: {error}")
    for name in ("CIFAR10", "MNIST", "STL10"):
        assert "cannot open" in refusal(f"torchvision:{name}:{tmp_path}")


# ------------------------------------------------------------------------- real data


@pytest.mark.real
def test_real_cifar10(real_data: Path) -> None:
    spec = InputSpec((3, 32, 32), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 10)
    images = open_images(real_data / "cifar10" / "test_lossless.npz", spec)
    assert len(images) == 9874
    assert min(np.bincount(labels(images))) == 878
    assert next(images.batches(250)).shape == (250, 3, 32, 32)


@pytest.mark.real
def test_real_imagenet(real_data: Path) -> None:
    spec = InputSpec((3, 224, 224), (0.5,) * 3, (0.5,) * 3, 1000, resize=256)
    images = open_images(real_data / "imagenet" / "samples1000_256.tar", spec, limit=8)
    assert labels(images) == list(range(8))
    assert next(images.batches(8)).shape == (8, 3, 224, 224)


# ------------------------------------------------------------------- what no one may ask


def test_links_that_lead_round_in_circles_are_followed_once(tmp_path: Path) -> None:
    for name in "01":
        (tmp_path / name).mkdir()
        Image.new("L", (8, 8)).save(tmp_path / name / "a.png")
        # Two in each: followed again and again they would make 2^40 folders.
        (tmp_path / name / "here").symlink_to(tmp_path / name)
        (tmp_path / name / "up").symlink_to(tmp_path)
    assert len(files.folder_files(tmp_path)) == 2


def test_a_pipe_is_no_image(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    spec = InputSpec((1, 8, 8), (0.5,), (0.5,), 5)
    with pytest.raises(DataError, match="not a regular file"):
        next(open_images(tmp_path, spec).batches(1))


def test_an_archive_that_unpacks_to_far_more_than_it_is_is_not_read(tmp_path: Path) -> None:
    spec, images = InputSpec((1, 8, 8), (0.5,), (0.5,), 5), np.zeros((2**21, 8, 8, 1), np.uint8)
    np.savez_compressed(tmp_path / "bomb.npz", images=images)
    assert (tmp_path / "bomb.npz").stat().st_size < 2**18
    with pytest.raises(DataError, match="far more than its size"):
        open_images(tmp_path / "bomb.npz", spec)
    np.savez_compressed(tmp_path / "small.npz", images=images[: 2**19])
    assert len(open_images(tmp_path / "small.npz", spec)) == 2**19
