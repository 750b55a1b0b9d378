from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

from dreamquant.errors import WeightsError
from dreamquant.networks.checkpoints import load_weights
from dreamquant.networks.reparametrized import bake
from dreamquant.networks.weights import state_sha256


def tiny(seed: int = 0, width: int = 4) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.Flatten())


def prefixed(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


def loads(tmp_path: Path, content: object, choice: str = "") -> tuple[str, ...]:
    """Load what holds the weights of seed 1, and return the notes."""
    torch.save(content, tmp_path / "w.pt")
    module = tiny(0)
    loaded = load_weights(module, tmp_path / f"w.pt{choice}")
    assert state_sha256(module) == state_sha256(tiny(1))
    return loaded.notes


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


PREFIXES = ["module.", "_orig_mod.", "model.", "net.", "module._orig_mod.", "_orig_mod.module."]


@pytest.mark.parametrize("wrapper", ["", "state_dict", "model", "params", "ema", "network"])
@pytest.mark.parametrize("prefix", ["", *PREFIXES, "model._orig_mod.module.", "a.b.c."])
def test_wrappers_and_prefixes_in_any_order(tmp_path: Path, wrapper: str, prefix: str) -> None:
    state = prefixed(prefix, tiny(1).state_dict())
    notes = loads(tmp_path, {wrapper: state, "epoch": 3} if wrapper else state)
    assert bool(notes) == bool(prefix) or wrapper == "ema"


def test_a_prefix_inside_of_names_is_found_and_one_of_the_network_kept(tmp_path: Path) -> None:
    inner, outer = nn.Sequential(tiny(1)), nn.Sequential(tiny(0))
    names = {name.replace("0.0.", "0.module.0."): t for name, t in inner.state_dict().items()}
    torch.save(names, tmp_path / "w.pt")
    assert load_weights(outer, tmp_path / "w.pt").notes
    assert state_sha256(outer) == state_sha256(inner)
    holder = nn.ModuleDict({"module": tiny(0)})
    torch.save(nn.ModuleDict({"module": tiny(1)}).state_dict(), tmp_path / "w.pt")
    assert not load_weights(holder, tmp_path / "w.pt").notes
    torch.save(tiny(1).state_dict(), tmp_path / "w.pt")
    load_weights(holder := nn.ModuleDict({"body": tiny(0)}), tmp_path / "w.pt")
    assert state_sha256(holder["body"]) == state_sha256(tiny(1))


def test_lightning_s_leftovers_are_named(tmp_path: Path) -> None:
    state = prefixed("model.", tiny(1).state_dict()) | {"criterion.weight": torch.ones(4)}
    notes = loads(tmp_path, {"state_dict": state, "loops": {}, "global_step": 9})
    assert any("ignored criterion.weight" in note for note in notes)


def test_counters_of_a_profiler_are_no_weights(tmp_path: Path) -> None:
    counters = {"total_ops": torch.zeros(1), "0.total_params": torch.zeros(1)}
    assert loads(tmp_path, dict(tiny(1).state_dict()) | counters) == ()


def test_a_plain_and_an_averaged_network_in_one_file(tmp_path: Path) -> None:
    content = {"state_dict": tiny(1).state_dict(), "state_dict_ema": tiny(2).state_dict()}
    notes = loads(tmp_path, content)
    assert any("'state_dict'" in n and "--weights w.pt#state_dict_ema" in n for n in notes)
    swapped = {"model": tiny(2).state_dict(), "model_ema": tiny(1).state_dict()}
    assert any("'model_ema'" in note for note in loads(tmp_path, swapped, "#model_ema"))
    loads(tmp_path, {"model": tiny(2).state_dict(), "ema": {"model": tiny(1).state_dict()}}, "#ema")
    by_prefix = prefixed("net.", tiny(2).state_dict()) | prefixed("ema.", tiny(1).state_dict())
    loads(tmp_path, by_prefix, "#ema")


def test_several_plain_networks_are_asked_about_and_the_remedy_works(tmp_path: Path) -> None:
    content = {"model": tiny(1).state_dict(), "net": tiny(2).state_dict()}
    with pytest.raises(WeightsError, match="several networks: model, net") as e:
        loads(tmp_path, content)
    loads(tmp_path, content, e.value.remedy[e.value.remedy.index("#") :])
    loads(tmp_path, {"model": tiny(1).state_dict(), "net": tiny(1).state_dict()})


def test_a_choice_that_the_file_lacks_names_those_it_has(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="contains no 'ema'") as e:
        loads(tmp_path, {"model": tiny(1).state_dict()}, "#ema")
    assert "model" in e.value.remedy


class WithHead(nn.Module):
    def __init__(self, seed: int, *, head: bool) -> None:
        super().__init__()
        self.body = tiny(seed)
        if head:
            self.aux1 = nn.Linear(2, 3)


def test_auxiliary_heads_either_way(tmp_path: Path) -> None:
    torch.save(WithHead(1, head=True).state_dict(), tmp_path / "w.pt")
    loaded = load_weights(module := WithHead(0, head=False), tmp_path / "w.pt")
    assert any("ignored aux1." in note for note in loaded.notes)
    assert state_sha256(module) == state_sha256(WithHead(1, head=False))
    torch.save(WithHead(1, head=False).state_dict(), tmp_path / "w.pt")
    loaded = load_weights(module := WithHead(0, head=True), tmp_path / "w.pt")
    assert loaded.absent == ("aux1",)
    assert not module.aux1.weight.any()


def test_a_mismatch_shows_the_longest_common_part(tmp_path: Path) -> None:
    state = prefixed("model.", tiny(1).state_dict())
    state["model.1.running_var"] = torch.ones(9)
    with pytest.raises(WeightsError) as e:
        loads(tmp_path, {"state_dict": state})
    assert "6 of 7 fit under the prefix 'model.'" in e.value.what
    assert "common part is 0.weight to 1.running_mean" in e.value.what
    with pytest.raises(WeightsError, match="no tensor of the network's 7 is in the file"):
        loads(tmp_path, {"x": torch.ones(1)})


@pytest.mark.parametrize(
    "change",
    [
        lambda conv: weight_norm(conv),
        lambda conv: spectral_norm(conv),
        lambda conv: prune.l1_unstructured(conv, "weight", 0.5),
        lambda conv: parametrizations.weight_norm(conv),
        lambda conv: parametrizations.spectral_norm(conv),
    ],
)
@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated")
def test_checkpoints_of_reparametrized_weights(
    tmp_path: Path, change: Callable[[nn.Module], nn.Module]
) -> None:
    given = tiny(1)
    change(given[0])  # type: ignore[index]
    given.eval()
    torch.save(given.state_dict(), tmp_path / "computed.pt")
    x = torch.randn(2, 3, 5, 5)
    wanted = given(x)
    notes = load_weights(module := tiny(0).eval(), tmp_path / "computed.pt").notes
    assert len(notes) == 1
    assert "of 1 weight baked in" in notes[0]
    assert torch.allclose(module(x), wanted, atol=1e-6)
    same = tiny(0)
    change(same[0])  # type: ignore[index]
    assert not load_weights(same.eval(), tmp_path / "computed.pt").notes
    assert torch.allclose(same(x), wanted, atol=1e-6)
    assert bake(same)
    assert state_sha256(same) == state_sha256(module)
    torch.save(tiny(1).state_dict(), tmp_path / "plain.pt")
    change((other := tiny(0))[0])  # type: ignore[index]
    load_weights(other.eval(), tmp_path / "plain.pt")
    assert state_sha256(other) == state_sha256(tiny(1))
