"""Problems that were reported for other tools, as tiny networks with the correct result."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune, spectral_norm, weight_norm
from torch.utils.checkpoint import checkpoint

import dreamquant
from dreamquant import InputSpec
from dreamquant.errors import NetworkError
from remedies import advises

SHAPE = (3, 8, 8)


def spec(classes: int = 4) -> InputSpec:
    return InputSpec(SHAPE, (0.0,) * 3, (1.0,) * 3, classes)


def settled(net: nn.Module) -> nn.Module:
    """With batch norms that remember noise."""
    net.train()
    with torch.no_grad():
        for _ in range(3):
            net(torch.randn(16, *SHAPE))
    return net.eval()


def plain(*ends: nn.Module, classes: int = 4) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, classes), *ends,
    )  # fmt: skip


def quantize(net: nn.Module, classes: int = 4, **options: Any) -> dreamquant.Result:
    options = {"bits": "w8a8", "method": "adadfq", "iterations": 4, "quiet": True} | options
    return dreamquant.quantize(net, input=spec(classes), device="cpu", **options)


def notes(result: dreamquant.Result) -> str:
    return "; ".join(result.manifest["network"]["notes"])


# ----------------------------------------------------- weights computed from others


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated")
@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (weight_norm, "weight_norm"),
        (spectral_norm, "spectral_norm"),
        (lambda conv: prune.l1_unstructured(conv, "weight", 0.5), "pruning"),
    ],
)
def test_computed_weights_are_quantized_after_a_step_of_training(
    change: Callable[[nn.Module], object], kind: str, tmp_path: Path
) -> None:
    net = plain()
    change(net[0])
    settled(net).train()(torch.randn(2, *SHAPE)).sum().backward()
    net.eval()
    result = quantize(net, out=tmp_path / "out")
    assert f"{kind} of 1 weight baked in" in notes(result)
    student = dreamquant.load(tmp_path / "out", network=net)
    x = torch.randn(2, *SHAPE)
    assert torch.equal(student(x), result.model(x))


# --------------------------------------------------------- failures in training


class Checkpointing(nn.Module):
    """Computes its first part again in the backward pass, to save memory."""

    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.body, self.head = plain()[:3], nn.Linear(6, 4)
        self.reentrant = reentrant

    def forward(self, x: Tensor) -> Tensor:
        features = checkpoint(self.body, x, use_reentrant=self.reentrant)
        return self.head(features.mean((2, 3)))


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointed_activations_train_as_others_do(reentrant: bool) -> None:
    class Plain(Checkpointing):
        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.body(x).mean((2, 3)))

    torch.manual_seed(0)
    net = settled(Checkpointing(reentrant))
    same = Plain(reentrant)
    same.load_state_dict(net.state_dict())
    result = quantize(net)
    assert "activation checkpointing of 1 parts is switched off" in notes(result)
    x = torch.randn(2, *SHAPE)
    assert torch.equal(result.model(x), quantize(same.eval()).model(x))


class Histogram(nn.Module):
    """An operation without a derivative in the middle."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.special.zeta(x.abs() + 2, x.abs() + 1)  # no derivative to the first


def test_an_operation_without_a_derivative_is_named_by_its_line() -> None:
    net = settled(nn.Sequential(plain()[:3], Histogram(), plain()[3:]))
    with pytest.raises(NetworkError, match="fails while training") as e:
        quantize(net)
    assert "memory" not in str(e.value)
    file, _, line = e.value.where.rpartition(":")
    assert Path(file) == Path(__file__)
    assert "torch.special.zeta" in Path(__file__).read_text().splitlines()[int(line) - 1]


# -------------------------------------------------------------------- one logit


def test_one_logit_counts_as_two_classes(tmp_path: Path) -> None:
    net = settled(plain(classes=1))
    result = quantize(net, classes=2, out=tmp_path / "out")
    assert "one logit" in notes(result)
    x = torch.randn(5, *SHAPE)
    logits = result.model(x)
    assert torch.equal(logits[:, 0], torch.zeros(5))
    given = dreamquant.load(tmp_path / "out", network=net)(x)
    assert given.shape == net(x).shape
    assert torch.equal(logits[:, 1:], given)
    chances = torch.stack([1 - net(x).sigmoid()[:, 0], net(x).sigmoid()[:, 0]], 1)
    assert torch.allclose(result.teacher(x).softmax(1), chances, atol=1e-6)


# ------------------------------------------------------- softmax and sigmoid ends


@pytest.mark.parametrize("end", [nn.Softmax(1), nn.Sigmoid()])
def test_the_losses_take_the_logits_before_the_last_layer(end: nn.Module, tmp_path: Path) -> None:
    with_end = quantize(settled(plain(end)), out=tmp_path / "out")
    assert f"ends in a {type(end).__name__.lower()}" in notes(with_end)
    without = quantize(settled(plain()))
    x = torch.randn(5, *SHAPE)
    ended, logits = with_end.model(x), without.model(x)
    assert torch.allclose(ended.softmax(1), logits.softmax(1), atol=1e-3)
    # The student that is handed out ends as the network did.
    handed = dreamquant.load(tmp_path / "out", network=settled(plain(end)))(x)
    assert torch.allclose(handed, end(ended), atol=1e-5)


def test_logits_between_0_and_1_are_logits() -> None:
    net = settled(plain())
    with torch.no_grad():
        net[5].weight.mul_(0.01)
        net[5].bias.fill_(0.5)
    assert notes(quantize(net)) == ""


# ----------------------------------------------------------- data-dependent control flow


class EarlyExit(nn.Module):
    """Runs its second part for some images alone."""

    def __init__(self) -> None:
        super().__init__()
        self.a = plain()[:3]
        self.b = nn.Sequential(nn.Conv2d(6, 9, 3, padding=1), nn.BatchNorm2d(9), nn.ReLU())
        self.c = nn.Sequential(nn.Conv2d(9, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        if x.flatten()[0] > 0:
            y = self.c(self.b(y))
        return self.head(y.mean((2, 3)))


def test_the_remedy_for_a_varying_forward_pass_works(tmp_path: Path) -> None:
    net = settled(EarlyExit())
    with pytest.raises(NetworkError, match=r"varies|another number") as e:
        quantize(net, iterations=20)
    assert "--placement layer-input" in e.value.remedy
    result = quantize(net, placement="layer-input", iterations=20, out=tmp_path / "out")
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["schema"] == 2
    assert result.model(torch.randn(2, *SHAPE)).shape == (2, 4)


def test_by_default_too_a_varying_forward_pass_is_refused_before_training(tmp_path: Path) -> None:
    net, out = settled(EarlyExit()), tmp_path / "out"
    given: dict[str, Any] = {"input": spec(), "device": "cpu", "quiet": True, "iterations": 4}
    with advises("recovery/stepwise.py:require_steady", "such as --method adadfq"):
        dreamquant.quantize(net, "w4a4", out=out, **given)
    with advises("quantization/stored.py:_miscounted", "give --scheme paper --placement layer"):
        dreamquant.quantize(net, "w4a4", "adadfq", scheme="integer", out=out, **given)
    assert not out.exists()
    paper = {"scheme": "paper", "placement": "layer-input"}
    dreamquant.quantize(net, "w4a4", "adadfq", **paper, **given)


def test_no_warning_of_a_hidden_kind() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quantize(settled(plain()))


@pytest.mark.parametrize("target", ["pt2", "int8box"])
def test_exported_files_keep_the_softmax(target: Any, tmp_path: Path) -> None:
    for package in ("onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    from dreamquant.export.job import export_result
    from dreamquant.export.runtime import open_onnx

    result = quantize(settled(plain(nn.Softmax(1))), out=tmp_path / "out")
    (file,) = export_result(result, [target], to=tmp_path / "out")
    x = torch.randn(3, *SHAPE)
    wanted = result.model(x).softmax(1)
    if target == "pt2":
        assert torch.allclose(torch.export.load(file.path).module()(x), wanted, atol=1e-5)
    else:
        import onnx

        assert "Softmax" in {node.op_type for node in onnx.load(file.path).graph.node}
        assert torch.allclose(open_onnx(file.path)(x).softmax(1), wanted, atol=0.02)
