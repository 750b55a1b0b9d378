import errno
import hashlib
import json
import os
from functools import partial
from pathlib import Path

import pytest
import torch

from dreamquant.errors import ResultError
from dreamquant.results.files import (
    read_json,
    read_tensors,
    sha256_file,
    write_bytes,
    write_json,
    write_tensors,
)

TENSORS = {
    "weight": torch.arange(6.0).reshape(2, 3),
    "codes": torch.tensor([1, 2], dtype=torch.uint8),
}
WRITERS = [
    pytest.param(partial(write_bytes, data=b"new"), id="bytes"),
    pytest.param(partial(write_json, obj={"new": 1}), id="json"),
    pytest.param(partial(write_tensors, tensors=TENSORS, metadata={}), id="tensors"),
]


def fail(code):
    def raise_error(*_):
        raise OSError(code, os.strerror(code))

    return raise_error


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("function", ["replace", "fsync"])
@pytest.mark.parametrize(
    ("code", "remedy"), [(errno.ENOSPC, "free some space"), (errno.EROFS, "you may write to")]
)
def test_failure_leaves_the_old_file_and_nothing_else(
    tmp_path, monkeypatch, write, function, code, remedy
):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, function, fail(code))
    with pytest.raises(ResultError) as caught:
        write(path)
    assert files(tmp_path) == {"file": b"old"}
    assert caught.value.where == str(path)
    assert remedy in caught.value.remedy


def test_interruption_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_bytes(path, b"new")
    assert files(tmp_path) == {"file": b"old"}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_full_disk_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"old")
    monkeypatch.setattr("pathlib.Path.touch", lambda path, exist_ok: path.symlink_to("/dev/full"))
    with pytest.raises(ResultError, match="No space left"):
        write_bytes(tmp_path / "file", b"new")
    assert files(tmp_path) == {"file": b"old"}


@pytest.mark.parametrize("write", WRITERS)
def test_success_replaces_and_leaves_nothing_else(tmp_path, write):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    write(path)
    assert list(files(tmp_path)) == ["file"]
    assert path.read_bytes() != b"old"


def test_folder_that_is_missing_or_a_file(tmp_path):
    (tmp_path / "plain").write_bytes(b"")
    for folder in ("missing", "plain"):
        with pytest.raises(ResultError, match="cannot write x"):
            write_bytes(tmp_path / folder / "x", b"new")
    assert list(files(tmp_path)) == ["plain"]


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere"
)
def test_read_only_folder(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(ResultError) as caught:
        write_bytes(tmp_path / "x", b"new")
    assert "you may write to" in caught.value.remedy


def test_file_has_ordinary_permissions(tmp_path):
    (tmp_path / "ordinary").write_bytes(b"")
    write_bytes(tmp_path / "x", b"")
    assert (tmp_path / "x").stat().st_mode == (tmp_path / "ordinary").stat().st_mode


def test_json_roundtrip_keeps_order_and_letters(tmp_path):
    path = tmp_path / "manifest.json"
    write_json(path, {"z": "Löwe", "a": [1, 2.5, None]})
    assert (
        path.read_text("utf-8") == json.dumps(read_json(path), indent=2, ensure_ascii=False) + "\n"
    )
    assert list(read_json(path)) == ["z", "a"]
    assert "Löwe" in path.read_text("utf-8")


def test_json_refuses_what_json_cannot_say(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "x", {"loss": float("nan")})
    assert not files(tmp_path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is not JSON"),
        (b'{"a": [1, 2', "is not JSON"),
        (b'{"a": "\xff"}', "is not JSON"),
        (b"[1]", "a JSON list, not an object"),
    ],
)
def test_damaged_json(tmp_path, data, message):
    path = tmp_path / "manifest.json"
    path.write_bytes(data)
    with pytest.raises(ResultError, match=message) as caught:
        read_json(path)
    assert caught.value.where == str(path)


@pytest.mark.parametrize("read", [read_json, read_tensors])
def test_missing_file_or_folder(tmp_path, read):
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(ResultError, match="cannot read"):
            read(path)


def test_tensors_roundtrip(tmp_path):
    path = tmp_path / "student.safetensors"
    shared = torch.arange(24.0).reshape(1, 2, 3, 4)
    given = TENSORS | {
        "layout": shared.to(memory_format=torch.channels_last),
        "view": shared[..., 1:],
        "parameter": torch.nn.Parameter(shared),
        "half": torch.ones(3, dtype=torch.bfloat16),
        "scalar": torch.tensor(3),
        "empty": torch.zeros(0, 2),
    }
    write_tensors(path, given, {"b": "2", "ä": "1"})
    tensors, metadata = read_tensors(path)
    assert metadata == {"b": "2", "ä": "1"}
    assert tensors.keys() == given.keys()
    for name, tensor in given.items():
        assert tensors[name].dtype == tensor.dtype
        assert torch.equal(tensors[name], tensor)


def test_no_tensors_and_no_metadata(tmp_path):
    write_tensors(tmp_path / "x", {}, {})
    assert read_tensors(tmp_path / "x") == ({}, {})


@pytest.mark.parametrize("keep", [0, 5, 60, -1])
def test_truncated_tensors(tmp_path, keep):
    path = tmp_path / "student.safetensors"
    write_tensors(path, TENSORS, {"key": "value"})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ResultError, match="not a complete safetensors file") as caught:
        read_tensors(path)
    assert caught.value.where == str(path)


def test_sha256(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"dream")
    assert sha256_file(path) == hashlib.sha256(b"dream").hexdigest()
