from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from dreamquant.errors import NetworkError, WeightsError
from dreamquant.networks.load import build_module, load_network
from dreamquant.networks.spec import InputSpec
from dreamquant.networks.weights import state_sha256
from dreamquant.networks.zoo import ZOOS, from_timm, from_torchvision, zoo_versions


def expecting(classes: int, size: int) -> InputSpec:
    return InputSpec((3, size, size), (0.5,) * 3, (0.5,) * 3, classes)


def zoo(name: str) -> Any:
    """The zoo's package, or a skip that says why it cannot be used."""
    try:
        return importlib.import_module(name)
    except (ImportError, RuntimeError, OSError) as error:
        pytest.skip(f"{name} cannot be used: {error}")


def saved(module: nn.Module, folder: Path) -> Path:
    torch.save(module.state_dict(), folder / "w.pt")
    return folder / "w.pt"


def test_torchvision_network_with_own_weights(tmp_path: Path) -> None:
    fresh = zoo("torchvision.models").resnet18()
    network = load_network("torchvision:resnet18", weights=saved(fresh, tmp_path))
    assert network.input.shape == (3, 224, 224)
    assert network.input.mean == (0.485, 0.456, 0.406)
    assert network.input.std == (0.229, 0.224, 0.225)
    assert network.input.num_classes == 1000
    assert network.input.resize == 256
    assert network.input.class_names == ()
    assert network.input_source == "torchvision ResNet18_Weights.IMAGENET1K_V1"
    assert network.weights_sha256 == state_sha256(fresh)
    assert network.source_sha256 is None


def test_options_override_the_zoo_and_are_told(tmp_path: Path) -> None:
    path = saved(zoo("torchvision.models").resnet18(num_classes=10), tmp_path)
    network = load_network(
        "torchvision:resnet18",
        weights=path,
        shape=(3, 64, 64),
        mean=(0.5,) * 3,
        num_classes=10,
    )
    assert network.input.shape == (3, 64, 64)
    assert network.input.mean == (0.5, 0.5, 0.5)
    assert network.input.std == (0.229, 0.224, 0.225)
    assert network.input.resize is None
    assert network.input.num_classes == 10
    source = "torchvision ResNet18_Weights.IMAGENET1K_V1; --input, --mean from options"
    assert network.input_source == source


def test_another_class_count_than_that_of_the_weights(tmp_path: Path) -> None:
    path = saved(zoo("torchvision.models").resnet18(num_classes=10), tmp_path)
    with pytest.raises(WeightsError, match=r"fc.weight float32 \(10, 512\) instead") as e:
        load_network("torchvision:resnet18", weights=path)
    assert "--classes" in e.value.remedy


def test_a_tag_chooses_other_weights() -> None:
    zoo("torchvision")
    first = from_torchvision("resnet50.IMAGENET1K_V1", pretrained=False)
    assert (first.source, first.resize) == ("torchvision ResNet50_Weights.IMAGENET1K_V1", 256)
    default = from_torchvision("resnet50", pretrained=False)
    assert (default.source, default.resize) == ("torchvision ResNet50_Weights.IMAGENET1K_V2", 232)
    with pytest.raises(NetworkError, match="'IMAGENET1K_V3'; nearest: IMAGENET1K_V"):
        from_torchvision("resnet50.IMAGENET1K_V3", pretrained=False)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_the_same_architecture_with_and_without_pretrained_weights(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Weights of the right shapes stand in for the download."""
    models = zoo("torchvision.models")
    download = models.get_model(name, weights=None, init_weights=False).state_dict()
    weights = models.get_model_weights(name)
    monkeypatch.setattr(weights, "get_state_dict", lambda *_, **__: download)
    pretrained = from_torchvision(name, pretrained=True)
    rebuilt = build_module(f"torchvision:{name}", expecting(1000, 299))
    assert len(pretrained.class_names) == 1000
    assert rebuilt.state_dict().keys() == pretrained.module.state_dict().keys()
    assert rebuilt.transform_input is pretrained.module.transform_input is True


def test_a_vision_transformer_has_the_image_size_of_its_weights() -> None:
    zoo("torchvision")
    with torch.device("meta"):
        found = from_torchvision("vit_b_16.IMAGENET1K_SWAG_E2E_V1", pretrained=False)
    assert found.shape == (3, 384, 384)
    assert found.module.image_size == 384


def test_pretrained_weights_keep_their_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    models = zoo("torchvision.models")
    download = models.resnet18().state_dict()
    monkeypatch.setattr(models.ResNet18_Weights, "get_state_dict", lambda *_, **__: download)
    network = load_network("torchvision:resnet18")
    assert network.input.class_names[0] == "tench"
    with pytest.raises(NetworkError, match="has 1000 classes, not 10"):
        load_network("torchvision:resnet18", num_classes=10)


def test_a_failed_download_asks_for_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    models = zoo("torchvision.models")

    def offline(*_: object, **__: object) -> None:
        raise OSError("<urlopen error\nno route>")

    monkeypatch.setattr(models.ResNet18_Weights, "get_state_dict", offline)
    with pytest.raises(NetworkError, match="cannot get the weights of resnet18: <urlopen") as e:
        load_network("torchvision:resnet18")
    assert "--weights FILE" in e.value.remedy


def test_timm_network_with_own_weights(tmp_path: Path) -> None:
    fresh = zoo("timm").create_model("mobilenetv2_050", num_classes=10)
    network = load_network("timm:mobilenetv2_050", weights=saved(fresh, tmp_path), num_classes=10)
    assert network.input.shape == (3, 224, 224)
    assert network.input.mean == (0.485, 0.456, 0.406)
    assert network.input.resize == 256
    assert network.input.num_classes == 10
    assert network.input_source == "timm pretrained_cfg mobilenetv2_050.lamb_in1k"
    assert network.weights_sha256 == state_sha256(fresh)


def test_timm_scales_by_its_crop() -> None:
    zoo("timm")
    found = from_timm("resnet18.a1_in1k", pretrained=False)
    assert (found.shape, found.resize) == ((3, 224, 224), 235)


def test_timm_download_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    timm = zoo("timm")

    def offline(*_: object, **__: object) -> None:
        raise OSError("no connection")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(NetworkError, match="cannot get the weights of resnet18: no conn") as e:
        load_network("timm:resnet18")
    assert "--weights FILE" in e.value.remedy


def test_pytorchcv_knows_the_size_but_no_normalisation(tmp_path: Path) -> None:
    fresh = zoo("pytorchcv.model_provider").get_model("resnet20_cifar10")
    path = saved(fresh, tmp_path)
    with pytest.raises(NetworkError, match=r": --mean, --std missing") as e:
        load_network("pytorchcv:resnet20_cifar10", weights=path)
    assert "--mean 0.4914,0.4822,0.4465" in e.value.remedy
    network = load_network(
        "pytorchcv:resnet20_cifar10", weights=path, mean=(0.5,) * 3, std=(0.25,) * 3
    )
    assert network.input.shape == (3, 32, 32)
    assert network.input.num_classes == 10
    assert network.input_source == "pytorchcv in_size; --mean, --std from options"
    assert network.weights_sha256 == state_sha256(fresh)


def test_pytorchcv_download_is_read_as_data_only(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fresh = zoo("pytorchcv.model_provider").get_model("resnet20_cifar10")
    torch.save(fresh.state_dict() | {"leftover": torch.ones(1)}, tmp_path / "w.pth")
    store = importlib.import_module("pytorchcv.models.common.model_store")
    monkeypatch.setattr(store, "get_model_file", lambda _: str(tmp_path / "w.pth"))
    network = load_network("pytorchcv:resnet20_cifar10", mean=(0.5,) * 3, std=(0.25,) * 3)
    assert network.weights_sha256 == state_sha256(fresh)
    torch.save(fresh, tmp_path / "w.pth")
    with pytest.raises(NetworkError, match=r"cannot get the weights .* more than tensors"):
        load_network("pytorchcv:resnet20_cifar10", mean=(0.5,) * 3, std=(0.25,) * 3)


def test_a_class_count_the_zoo_cannot_build(tmp_path: Path) -> None:
    fresh = zoo("pytorchcv.model_provider").get_model("resnet20_cifar10")
    with pytest.raises(NetworkError, match="pytorchcv cannot build resnet20_cifar10") as e:
        load_network("pytorchcv:resnet20_cifar10", weights=saved(fresh, tmp_path), num_classes=7)
    assert "--classes" in e.value.remedy


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("torchvision:resnet81", "resnet18"),
        ("torchvision:", ""),
        ("torchvision:fcn_resnet50", "resnet50"),
        ("timm:mobilenet_v2_050", "mobilenetv2_050"),
        ("timm:resnet18.a9_in1k", "resnet18.a1_in1k"),
        ("pytorchcv:resnet20_cifar", "resnet20_cifar10"),
    ],
)
def test_unknown_architectures_get_the_nearest_names(name: str, near: str) -> None:
    zoo(name.partition(":")[0])
    with pytest.raises(NetworkError, match="there is no") as e:
        load_network(name)
    assert near in e.value.what


@pytest.mark.parametrize(
    ("name", "classes"),
    [("torchvision:resnet18", 7), ("timm:mobilenetv2_050", 7), ("pytorchcv:resnet20_cifar10", 10)],
)
def test_rebuilding_an_architecture(name: str, classes: int) -> None:
    zoo(name.partition(":")[0])
    module = build_module(name, expecting(classes, 32))
    assert module(torch.zeros(1, 3, 32, 32)).shape == (1, classes)
    assert not module.training
    assert not any(p.requires_grad for p in module.parameters())


@pytest.mark.parametrize("name", list(ZOOS))
def test_a_missing_zoo_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for module in [m for m in sys.modules if m.partition(".")[0] == name]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(NetworkError, match=f"{name} cannot be used") as e:
        load_network(f"{name}:resnet18")
    assert e.value.remedy == 'pip install "dreamquant[zoo]"'
    assert zoo_versions()[name].startswith(f"{name} cannot be used: ")


def test_a_zoo_built_for_another_torch_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Mismatched:
        """Finds torchvision, and fails as its extension does beside another torch."""

        @staticmethod
        def find_spec(name: str, *_: object) -> None:
            if name.partition(".")[0] == "torchvision":
                raise RuntimeError("operator torchvision::nms does not exist")

    for module in [m for m in sys.modules if m.partition(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(sys, "meta_path", [Mismatched, *sys.meta_path])
    with pytest.raises(NetworkError, match="torchvision::nms does not exist") as e:
        load_network("torchvision:resnet18")
    assert "match each other" in e.value.remedy
    assert "nms" in zoo_versions()["torchvision"]


def test_versions_of_zoos_that_work() -> None:
    assert zoo_versions()["timm"] == zoo("timm").__version__


def test_importing_the_rooms_imports_no_zoo() -> None:
    code = (
        "import sys, dreamquant.networks.load, dreamquant.networks.probe;"
        "print([z for z in ('torchvision', 'timm', 'pytorchcv') if z in sys.modules])"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    assert run.stdout.strip() == "[]"
