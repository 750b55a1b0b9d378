from __future__ import annotations

import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from dreamquant.errors import WeightsError
from dreamquant.networks.weights import (
    load_weights,
    read_state_dict,
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
        assert same(read_state_dict(tmp_path / file), dict(state)), file


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "model_state_dict", "net"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_wrappers_and_parallel_prefix_are_taken_off(
    tmp_path: Path, wrapper: str, prefix: str
) -> None:
    state = tiny().state_dict()
    prefixed = {prefix + name: tensor for name, tensor in state.items()}
    torch.save({wrapper: prefixed, "epoch": 3}, tmp_path / "w.pt")
    assert same(read_state_dict(tmp_path / "w.pt"), dict(state))


def test_a_submodule_called_module_keeps_its_name(tmp_path: Path) -> None:
    torch.save({"module.weight": torch.ones(1), "bias": torch.ones(1)}, tmp_path / "w.pt")
    assert set(read_state_dict(tmp_path / "w.pt")) == {"module.weight", "bias"}


def test_several_wrapped_networks_are_not_chosen_from(tmp_path: Path) -> None:
    state = tiny().state_dict()
    torch.save({"model": state, "net": state}, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match="several networks: model, net"):
        read_state_dict(tmp_path / "w.pt")


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_torch_file_never_runs(tmp_path: Path, zipped: bool) -> None:
    proof = tmp_path / "proof"
    evil = {"weight": torch.ones(1), "extra": Shell(proof)}
    torch.save(evil, tmp_path / "evil.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsError, match=r"more than tensors, such as (posix|nt)\.system") as e:
        read_state_dict(tmp_path / "evil.pt")
    assert "weights_only" not in str(e.value)
    assert not proof.exists()


def test_code_in_a_plain_pickle_never_runs(tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps({"weight": Shell(proof)}))
    with pytest.raises(WeightsError, match="cannot be read"):
        read_state_dict(tmp_path / "evil.pkl")
    assert not proof.exists()
    pickle.loads((tmp_path / "evil.pkl").read_bytes())
    assert proof.exists(), "the file was harmless, so the test proved nothing"


def test_a_pickled_module_is_refused(tmp_path: Path) -> None:
    torch.save(tiny(), tmp_path / "module.pt")
    with pytest.raises(WeightsError, match=r"more than tensors.*torch\.nn\.modules") as e:
        read_state_dict(tmp_path / "module.pt")
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
        read_state_dict(path)
    assert e.value.where == str(path)


@pytest.mark.parametrize(
    "content", [b"hello", b"\x80", bytes(range(256)), b"PK\x03\x04", struct.pack("<Q", 9) + b"{"]
)
def test_files_of_something_else_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "w.bin").write_bytes(content)
    with pytest.raises(WeightsError, match="cannot be read"):
        read_state_dict(tmp_path / "w.bin")


def test_missing_file_and_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none.pt", tmp_path):
        with pytest.raises(WeightsError, match="no such weights file"):
            read_state_dict(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (torch.ones(2), "no state dict but Tensor"),
        ([torch.ones(2)], "no state dict but list"),
        ({}, "an empty dictionary"),
        ({"state_dict": {}}, "an empty dictionary"),
        ({"weight": torch.ones(2), "epoch": 3}, "no tensors: epoch"),
    ],
)
def test_torch_files_without_a_state_dict(tmp_path: Path, content: object, message: str) -> None:
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=message):
        read_state_dict(tmp_path / "w.pt")


def test_loading_sets_every_tensor(tmp_path: Path) -> None:
    torch.save(tiny(1).state_dict(), tmp_path / "w.pt")
    module = tiny(0)
    load_weights(module, tmp_path / "w.pt")
    assert state_sha256(module) == state_sha256(tiny(1))


def test_half_precision_is_widened(tmp_path: Path) -> None:
    torch.save(tiny(1).half().state_dict(), tmp_path / "w.pt")
    module = tiny(0)
    load_weights(module, tmp_path / "w.pt")
    assert torch.equal(module[0].weight, tiny(1)[0].weight.half().float())  # type: ignore[index]


def test_missing_batch_counters_are_fine(tmp_path: Path) -> None:
    state = {k: v for k, v in tiny(1).state_dict().items() if "num_batches" not in k}
    torch.save(state, tmp_path / "w.pt")
    module = tiny(0)
    load_weights(module, tmp_path / "w.pt")
    assert state_sha256(module) == state_sha256(tiny(1))


def test_weights_of_another_network_are_listed(tmp_path: Path) -> None:
    state = tiny(width=5).state_dict()
    state["head.weight"] = state.pop("0.bias")
    torch.save(state, tmp_path / "w.pt")
    before = state_sha256(module := tiny())
    with pytest.raises(WeightsError) as e:
        load_weights(module, tmp_path / "w.pt")
    text = str(e.value)
    assert "1 missing: 0.bias" in text
    assert "1 unexpected: head.weight" in text
    assert "5 of another shape or type: 0.weight float32 (5, 3, 3, 3) instead of float32 (4" in text
    assert state_sha256(module) == before


def test_unexpected_tensors_are_dropped_only_when_asked(tmp_path: Path) -> None:
    torch.save(tiny(1).state_dict() | {"more": torch.ones(1)}, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match="1 unexpected: more"):
        load_weights(tiny(), tmp_path / "w.pt")
    load_weights(module := tiny(), tmp_path / "w.pt", drop_unexpected=True)
    assert state_sha256(module) == state_sha256(tiny(1))


def test_long_lists_are_cut_with_a_count(tmp_path: Path) -> None:
    torch.save({f"layer{i:02}": torch.ones(1) for i in range(25)}, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=r"25 unexpected: .*layer09, and 15 more") as e:
        load_weights(tiny(), tmp_path / "w.pt")
    assert "layer10" not in str(e.value)


def test_integer_codes_are_not_taken_for_weights(tmp_path: Path) -> None:
    state = tiny().state_dict()
    state["0.weight"] = state["0.weight"].to(torch.int8)
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=r"1 of another shape or type: 0.weight int8"):
        load_weights(tiny(), tmp_path / "w.pt")


def test_sparse_weights_are_refused(tmp_path: Path) -> None:
    state = tiny().state_dict()
    state["0.bias"] = state["0.bias"].to_sparse()
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=r"0.bias"):
        load_weights(tiny(), tmp_path / "w.pt")


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
