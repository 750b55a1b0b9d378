from __future__ import annotations

import copy
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import dreamquant
from dreamquant.errors import NetworkError
from dreamquant.networks.load import load_network
from dreamquant.networks.onnx_file import network_in, read_onnx
from onnx_files import with_weights_beside

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


class Gate(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.fc(x.mean((2, 3), keepdim=True)))


class Shuffle(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        first, second = x.view(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, c, h, w).chunk(2, 1)
        return torch.cat([first, second * 2], 1)[:, :, 1:, ::2]


def body(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), *layers).eval()


NETWORKS = {
    "plain": lambda: body(nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
                          nn.Linear(128, 4)),
    "relu6": lambda: body(nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)),
    "gate": lambda: body(nn.Hardswish(), Gate(), nn.SiLU(), nn.AvgPool2d(2), nn.Flatten(),
                         nn.Linear(128, 4), nn.Softmax(1)),
    "pad": lambda: body(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(8, 8, 3, 2), nn.LeakyReLU(),
                        nn.PReLU(8), nn.ConvTranspose2d(8, 8, 2, 2), nn.Upsample(scale_factor=2),
                        nn.Flatten(), nn.Linear(2048, 4)),
    "shuffle": lambda: body(Shuffle(), nn.ReLU(), nn.Flatten(), nn.Linear(224, 4)),
    "tokens": lambda: nn.Sequential(nn.Flatten(2), nn.Linear(64, 16), nn.LayerNorm(16), nn.GELU(),
                                    nn.Flatten(), nn.Linear(48, 4)).eval(),
}  # fmt: skip


def exported(net: nn.Module, opset: int, *, x: Tensor | None = None) -> bytes:
    """By the tracing exporter up to opset 17, by today's from 18 on."""
    given = torch.zeros(1, 3, 8, 8) if x is None else x
    if opset >= 18:
        program = torch.onnx.export(net, (given,), dynamo=True, opset_version=opset, verbose=False)
        return program.model_proto.SerializeToString()
    buffer = io.BytesIO()
    names = {"input_names": ["image"], "output_names": ["scores"]}
    torch.onnx.export(net, (given,), buffer, dynamo=False, opset_version=opset, **names)
    return buffer.getvalue()


def write(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    return str(path)


@pytest.mark.parametrize("opset", [11, 17, 20])
@pytest.mark.parametrize("kind", NETWORKS)
def test_a_converted_network_computes_what_the_exported_one_did(
    tmp_path: Path, kind: str, opset: int
) -> None:
    torch.manual_seed(0)
    net = NETWORKS[kind]()
    found = network_in(read_onnx(write(tmp_path / "m.onnx", exported(net, opset))))
    assert found.shape == (3, 8, 8)
    x = torch.randn(3, 3, 8, 8)
    for module in (found.module, copy.deepcopy(found.module)):
        assert torch.allclose(module(x), net(x), atol=1e-5)


def test_layers_keep_their_names_and_folded_batch_norms_are_told(tmp_path: Path) -> None:
    net = nn.ModuleDict({"body": NETWORKS["plain"]()})
    net.forward = lambda x: net["body"](x)
    found = network_in(read_onnx(write(tmp_path / "m.onnx", exported(net, 18))))
    layers = {n for n, m in found.module.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    assert layers == {"body.0", "body.5"}
    assert any("folded into its 1 convolution" in note for note in found.notes)


def test_names_of_input_and_output_are_on_record(tmp_path: Path) -> None:
    found = network_in(read_onnx(write(tmp_path / "m.onnx", exported(NETWORKS["plain"](), 17))))
    assert "ONNX input 'image', output 'scores'" in found.notes


def test_a_network_with_batch_norms_is_quantized_saved_and_loaded(tmp_path: Path) -> None:
    torch.manual_seed(0)
    # A batch norm behind a ReLU cannot be folded.
    net = body(nn.ReLU(), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(512, 4))
    name = write(tmp_path / "m.onnx", exported(net, 17))
    network = load_network(name, mean=(0.0,) * 3, std=(1.0,) * 3)
    result = dreamquant.quantize(
        network, "w8a8", iterations=4, device="cpu", quiet=True, out=tmp_path / "out"
    )
    images = torch.randn(2, 3, 8, 8)
    assert torch.equal(dreamquant.load(tmp_path / "out")(images), result.model(images))
    Path(name).write_bytes(exported(NETWORKS["plain"](), 17))
    with pytest.raises(NetworkError, match="not the file that this network was built from"):
        dreamquant.load(tmp_path / "out")


def test_free_sizes_are_asked_for(tmp_path: Path) -> None:
    net, buffer = NETWORKS["relu6"](), io.BytesIO()
    axes = {"x": {0: "n", 2: "h", 3: "w"}}
    torch.onnx.export(net, (torch.zeros(1, 3, 8, 8),), buffer, dynamo=False, input_names=["x"],
                      opset_version=17, dynamic_axes=axes)  # fmt: skip
    file = read_onnx(write(tmp_path / "m.onnx", buffer.getvalue()))
    with pytest.raises(NetworkError, match="several sizes") as e:
        network_in(file)
    assert "--input" in e.value.remedy
    x = torch.randn(2, 3, 6, 10)
    assert torch.allclose(network_in(file, (3, 6, 10)).module(x), net(x), atol=1e-5)
    with pytest.raises(NetworkError, match="does not take an input of 1x8x8") as e:
        network_in(file, (1, 8, 8))
    assert "3xNxN" in e.value.remedy


def graph(
    nodes: list[Any], shape: list[int | str], kind: int = 1, rank: int = 4, **weights: Any
) -> bytes:
    helper = onnx.helper
    return onnx.helper.make_model(
        helper.make_graph(
            nodes,
            "g",
            [helper.make_tensor_value_info("x", kind, shape)],
            [helper.make_tensor_value_info("y", 1, list("abcd")[:rank])],
            [onnx.numpy_helper.from_array(np.array(v), n) for n, v in weights.items()],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    ).SerializeToString()


def test_pixels_with_channels_last_as_tensorflow_writes_them(tmp_path: Path) -> None:
    node, random = onnx.helper.make_node, np.random.default_rng(0)
    nodes = [
        node("Cast", ["x"], ["f"], to=1),
        node("Div", ["f", "scale"], ["d"]),
        node("Transpose", ["d"], ["t"], perm=[0, 3, 1, 2]),
        node("Conv", ["t", "w"], ["c"], auto_pad="SAME_UPPER", strides=[2, 2], name="first"),
        node("Relu", ["c"], ["r"]),
        node("GlobalAveragePool", ["r"], ["p"]),
        node("Flatten", ["p"], ["h"]),
        node("MatMul", ["h", "m"], ["y"]),
    ]
    weights = {
        "scale": np.float32(255),
        "w": random.normal(size=(5, 3, 3, 3)).astype(np.float32),
        "m": random.normal(size=(5, 4)).astype(np.float32),
    }
    data = graph(nodes, ["n", 8, 6, 3], 2, 2, **weights)
    network = load_network(write(tmp_path / "m.onnx", data))
    assert network.input.shape == (3, 8, 6)
    assert network.input.mean == (0.0,) * 3
    assert network.input.std == pytest.approx((1 / 255,) * 3)
    assert isinstance(network.module.get_submodule("first"), nn.Conv2d)


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        (
            [("NonZero", ["x"], {})],
            "1 nodes cannot be converted: NonZero odd: this operator is not supported",
        ),
        ([("Softmax", ["x"], {}), ("Det", ["y0"], {})], "Det odd"),
        ([("Upsample", ["x", "s"], {})], "damaged"),
        ([("QuantizeLinear", ["x", "s"], {})], "already quantized"),
        ([("DepthToSpace", ["x"], {"blocksize": 1})], "DepthToSpace odd: its mode is DCR"),
        ([("Split", ["x"], {"axis": 1, "num_outputs": 2})], "damaged"),
        ([("ConstantOfShape", ["big"], {})], "its output is too large"),
    ],
)
def test_what_is_not_converted_is_named_by_node(
    tmp_path: Path, nodes: list[tuple[str, list[str], dict[str, Any]]], message: str
) -> None:
    made = [
        onnx.helper.make_node(k, i, ["y" if n == len(nodes) - 1 else f"y{n}"], name="odd", **a)
        for n, (k, i, a) in enumerate(nodes)
    ]
    data = graph(made, [1, 2, 4, 4], s=np.float32(1), big=np.array([2**20, 2**20], np.int64))
    with pytest.raises(NetworkError, match=message):
        network_in(read_onnx(write(tmp_path / "m.onnx", data)))


@pytest.mark.parametrize("keep", [0, 1, 9, 100, -1, -200])
def test_damaged_files_are_named(tmp_path: Path, keep: int) -> None:
    name = write(tmp_path / "m.onnx", exported(NETWORKS["plain"](), 17)[:keep])
    with pytest.raises(NetworkError) as e:
        network_in(read_onnx(name))
    assert e.value.where == name


def test_altered_files_end_in_documented_errors_or_compute_what_the_runtime_does(
    tmp_path: Path,
) -> None:
    data, random = exported(NETWORKS["relu6"](), 17), np.random.default_rng(0)
    refused = 0
    for _ in range(60):
        altered = np.frombuffer(data, np.uint8).copy()
        places = random.integers(0, len(altered), 3)
        altered[places] = random.integers(0, 256, 3)
        try:
            network_in(read_onnx(write(tmp_path / "m.onnx", altered.tobytes())))
        except NetworkError:
            refused += 1
    assert refused


def beside(folder: Path, location: str = "w.bin") -> Path:
    """A file whose weights lie in another, which it says is at ``location``."""
    model = onnx.load_model_from_string(exported(NETWORKS["plain"](), 17))
    return with_weights_beside(model, folder / "m.onnx", location)


def test_weights_beside_the_file_are_read_and_hashed_with_it(tmp_path: Path) -> None:
    path = beside(tmp_path)
    file = read_onnx(str(path))
    x = torch.randn(2, 3, 8, 8)
    found = network_in(file).module(x)
    onnx.save(onnx.load(path), tmp_path / "whole.onnx")
    assert torch.equal(found, network_in(read_onnx(str(tmp_path / "whole.onnx"))).module(x))
    weights = bytearray((tmp_path / "w.bin").read_bytes())
    weights[-1] ^= 1
    (tmp_path / "w.bin").write_bytes(weights)
    assert read_onnx(str(path)).sha256 != file.sha256


@pytest.mark.parametrize("location", ["../w.bin", "/etc/hostname", "sub/w.bin"])
def test_weights_elsewhere_are_refused_and_the_remedy_works(tmp_path: Path, location: str) -> None:
    with pytest.raises(NetworkError, match="lie outside of its folder") as e:
        read_onnx(str(beside(tmp_path, location)))
    assert "onnx.save(onnx.load(FILE), NEW)" in e.value.remedy
    onnx.save(onnx.load(beside(tmp_path)), tmp_path / "whole.onnx")
    assert network_in(read_onnx(str(tmp_path / "whole.onnx"))).shape == (3, 8, 8)


def test_missing_and_short_weights_are_named(tmp_path: Path) -> None:
    path, weights = beside(tmp_path), tmp_path / "w.bin"
    weights.write_bytes(weights.read_bytes()[:10])
    with pytest.raises(NetworkError, match=r"cannot be read from w\.bin"):
        read_onnx(str(path))
    weights.unlink()
    with pytest.raises(NetworkError, match=r"w\.bin, which holds its weights, is missing") as e:
        read_onnx(str(path))
    assert e.value.remedy == "put w.bin beside m.onnx, as it was saved"
    weights.symlink_to("/etc/hostname")
    with pytest.raises(NetworkError, match="outside of its folder"):
        read_onnx(str(path))


def test_a_missing_file() -> None:
    with pytest.raises(NetworkError, match="No such file"):
        load_network("nosuch_.onnx")


@pytest.mark.real
def test_a_real_detector_whose_batch_norms_are_folded(real_data: Path) -> None:
    path = real_data / "zoo" / "coco_fastestdet_folded.onnx"
    if not path.is_file():
        pytest.skip(f"no {path}")
    found = network_in(read_onnx(str(path)))
    assert found.shape == (3, 352, 352)
    assert found.module(torch.zeros(2, 3, 352, 352)).shape == (2, 85, 22, 22)


def test_evaluate_takes_a_file_of_others_with_its_mean(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from dreamquant.cli.main import main

    torch.manual_seed(0)
    net = NETWORKS["plain"]()
    name = write(tmp_path / "m.onnx", exported(net, 17))
    pixels = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), np.uint8)
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    np.savez(tmp_path / "a.npz", images=pixels, labels=net(x).argmax(1).numpy())
    given = ("--mean", "0,0,0", "--std", "1,1,1", "--json")
    with pytest.raises(SystemExit) as e:
        main(["evaluate", name, str(tmp_path / "a.npz"), *given])
    assert not e.value.code
    assert '"top1": 100.0' in capsys.readouterr().out
