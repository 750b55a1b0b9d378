from __future__ import annotations

import argparse
import os
import pickle
import re
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from dreamquant.errors import WeightsError
from dreamquant.networks.weights import (
    read_groups,
    require_finite,
    state_sha256,
)


def tiny(seed: int = 0, width: int = 4) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.Flatten())


class Shell:
    """Unpickled, it leaves a file behind: proof that code ran."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.proof}",)


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_torch_and_safetensors_files_give_the_same_tensors(tmp_path: Path) -> None:
    state = tiny().state_dict()
    torch.save(state, tmp_path / "a.pt")
    torch.save(state, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    save_file(state, tmp_path / "b.safetensors")
    (tmp_path / "c.weights").write_bytes((tmp_path / "b.safetensors").read_bytes())
    for file in ("a.pt", "old.pt", "b.safetensors", "c.weights"):
        assert same(read_groups(tmp_path / file)[""], dict(state)), file


@pytest.mark.parametrize("wrapper", ["state_dict", "ema", "anything"])
def test_state_dicts_in_dictionaries_are_found_by_their_place(tmp_path: Path, wrapper: str) -> None:
    state = tiny().state_dict()
    content = {wrapper: state, "deeper": {"model": state}, "epoch": 3, "optimizer": {"state": {}}}
    torch.save(content, tmp_path / "w.pt")
    groups = read_groups(tmp_path / "w.pt")
    assert groups.keys() == {wrapper, "deeper.model"}
    assert all(same(group, dict(state)) for group in groups.values())


def test_arguments_of_a_training_script_are_data(tmp_path: Path) -> None:
    content = {
        "state_dict": tiny().state_dict(),
        "args": argparse.Namespace(lr=0.1),
        "best": np.float64(0.9),
        "seen": np.int64(3),
        "mean": torch.ones(3),
        "epoch": 7,
    }
    torch.save(content, tmp_path / "w.pt")
    assert read_groups(tmp_path / "w.pt").keys() == {"state_dict"}


def _script(path: Path) -> None:
    torch.jit.trace(tiny().eval(), torch.zeros(1, 3, 4, 4)).save(path)


def _program(path: Path) -> None:
    torch.export.save(torch.export.export(tiny().eval(), (torch.zeros(1, 3, 4, 4),)), path)


@pytest.mark.parametrize(
    ("save", "form"), [(_script, "TorchScript"), (_program, "a torch.export program")]
)
def test_archives_with_code_are_named_and_their_remedy_works(
    tmp_path: Path, save: Callable[[Path], None], form: str
) -> None:
    path = tmp_path / "model.pt2"
    save(path)
    with pytest.raises(WeightsError, match=f"the weights are {form}") as e:
        read_groups(path)
    remedy = re.search(r"torch.save\((.*), NEW\)", e.value.remedy)
    assert remedy
    torch.save(eval(remedy[1]), tmp_path / "new.pt")
    assert same(read_groups(tmp_path / "new.pt")[""], dict(tiny().state_dict()))


def test_an_onnx_file_as_weights_is_pointed_to_its_place(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"x")
    with pytest.raises(WeightsError, match="ONNX file") as e:
        read_groups(tmp_path / "model.onnx")
    assert "dreamquant quantize" in e.value.remedy


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_torch_file_never_runs(tmp_path: Path, zipped: bool) -> None:
    proof = tmp_path / "proof"
    evil = {"weight": torch.ones(1), "extra": Shell(proof)}
    torch.save(evil, tmp_path / "evil.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsError, match=r"more than tensors, such as (posix|nt)\.system") as e:
        read_groups(tmp_path / "evil.pt")
    assert "weights_only" not in str(e.value)
    assert not proof.exists()


def test_code_in_a_plain_pickle_never_runs(tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps({"weight": Shell(proof)}))
    with pytest.raises(WeightsError, match="cannot be read"):
        read_groups(tmp_path / "evil.pkl")
    assert not proof.exists()
    pickle.loads((tmp_path / "evil.pkl").read_bytes())
    assert proof.exists(), "the file was harmless, so the test proved nothing"


def test_a_pickled_module_is_refused(tmp_path: Path) -> None:
    torch.save(tiny(), tmp_path / "module.pt")
    with pytest.raises(WeightsError, match=r"more than tensors.*torch\.nn\.modules") as e:
        read_groups(tmp_path / "module.pt")
    assert "model.state_dict()" in e.value.remedy


@pytest.mark.parametrize("keep", [0, 1, 7, 8, 9, 40, 200, -1])
@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_truncated_files_are_named_not_traced(tmp_path: Path, keep: int, suffix: str) -> None:
    path = tmp_path / f"w.{suffix}"
    if suffix == "pt":
        torch.save(tiny().state_dict(), path)
    else:
        save_file(tiny().state_dict(), path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(WeightsError, match="cannot be read") as e:
        read_groups(path)
    assert e.value.where == str(path)


@pytest.mark.parametrize(
    "content", [b"hello", b"\x80", bytes(range(256)), b"PK\x03\x04", struct.pack("<Q", 9) + b"{"]
)
def test_files_of_something_else_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "w.bin").write_bytes(content)
    with pytest.raises(WeightsError, match="cannot be read"):
        read_groups(tmp_path / "w.bin")


def test_missing_file_and_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none.pt", tmp_path):
        with pytest.raises(WeightsError, match="the weights file does not exist"):
            read_groups(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (torch.ones(2), "Tensor, not a state dict"),
        ([torch.ones(2)], "list, not a state dict"),
        ({}, "an empty dictionary"),
        ({"state_dict": {}}, "a dictionary without tensors"),
        ({"weight": torch.ones(2), "epoch": 3}, "not tensors: epoch"),
    ],
)
def test_torch_files_without_a_state_dict(tmp_path: Path, content: object, message: str) -> None:
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=message):
        read_groups(tmp_path / "w.pt")


def test_finite_weights_pass_and_others_are_counted() -> None:
    module = tiny()
    require_finite(module)
    state = module.state_dict()
    state["0.weight"].view(-1)[:2] = torch.nan
    state["1.running_var"][0] = torch.inf
    with pytest.raises(WeightsError) as e:
        require_finite(module)
    assert "0.weight: 2 NaN, 0 infinite of 108" in str(e.value)
    assert "1.running_var: 0 NaN, 1 infinite of 4" in str(e.value)


def test_hash_sees_numbers_names_and_types_but_no_counters() -> None:
    module, reference = tiny(), state_sha256(tiny())
    assert len(reference) == 64
    assert state_sha256(module) == reference
    module[1].num_batches_tracked += 1  # type: ignore[index, operator]
    assert state_sha256(module) == reference
    with torch.no_grad():
        module[0].weight[0, 0, 0, 0] += 1e-6  # type: ignore[index, operator]
    assert state_sha256(module) != reference
    assert state_sha256(tiny().half()) != reference
    assert state_sha256(nn.ModuleDict({"a": tiny()})) != reference


def test_hash_takes_any_layout_and_type() -> None:
    module = nn.Module()
    for name, tensor in {
        "scalar": torch.tensor(1.5),
        "empty": torch.empty(0, 3),
        "flags": torch.tensor([True, False]),
        "brain": torch.ones(3, dtype=torch.bfloat16),
        "strided": torch.arange(6.0).view(2, 3).T,
    }.items():
        module.register_buffer(name, tensor)
    reference = state_sha256(module)
    module.strided = torch.arange(6.0).view(2, 3).T.contiguous()
    assert state_sha256(module) == reference
