import json
from dataclasses import asdict

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from dreamquant.errors import NetworkError, ResultError, WeightsError
from dreamquant.networks.load import load_network, wrap_module
from dreamquant.networks.spec import InputSpec
from dreamquant.networks.zoo import ZOOS
from dreamquant.quantization.convert import quantize_network
from dreamquant.quantization.scheme import Bits, Scheme
from dreamquant.results.describe import describe_network
from dreamquant.results.folder import CHECKPOINT, LOG, SAMPLES, STUDENT, claim_folder, remove_result
from dreamquant.results.manifest import MANIFEST, SCHEMA
from dreamquant.results.reopen import load, open_result, reopen_teacher
from dreamquant.results.result import Result, Samples

SPEC = InputSpec((3, 8, 8), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), 5)
PLACEMENTS = ("relu-output", "layer-input")
FILE = """
from torch import nn

def network():
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU(inplace=True),
        nn.Conv2d(6, 6, 3, groups=6), nn.ReLU(), nn.Flatten(), nn.Linear(96, 5),
    )
"""


def tiny(seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        namespace = {}
        exec(FILE, namespace)
        return namespace["network"]()


def images(network, count=4):
    generator = torch.Generator().manual_seed(1)
    return torch.randn((count, *network.input.shape), generator=generator)


def scheme(bits="w4a4", placement="relu-output", **options):
    return Scheme(Bits.parse(bits), placement, **options)


def quantized(network, scheme, samples=None):
    """A result as a run leaves it, its manifest cut down to what is read again."""
    student, _ = quantize_network(network.module, scheme, images(network))
    student.observe(True)
    with torch.no_grad():
        student(images(network))
    student.fix()
    manifest = {
        "schema": SCHEMA,
        "phases": [],
        "network": describe_network(network),
        "scheme": asdict(scheme),
        "prepared": [],
        "accuracy": {"teacher": {"top1": 90.0}, "ranges_only": None, "student": {"top1": 80.0}},
        "agreement": {"percent": 85.0, "on": "4 images given"},
        "timings": {"training_seconds": 1.0, "seconds": 2.0, "iterations": 3},
    }
    return Result(student, json.loads(json.dumps(manifest)), samples, network.module)


def in_memory(seed=0):
    return wrap_module(tiny(seed), SPEC)


def from_file(folder):
    path = folder / "nets.py"
    path.write_text(FILE)
    save_file(tiny().state_dict(), folder / "weights.safetensors")
    return load_network(
        f"{path}:network",
        weights=folder / "weights.safetensors",
        shape=SPEC.shape,
        mean=SPEC.mean,
        std=SPEC.std,
    )


def from_zoo(folder):
    pytest.importorskip("pytorchcv")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = ZOOS["pytorchcv"]("resnet20_cifar10", pretrained=False).module
    save_file(module.state_dict(), folder / "zoo.safetensors")
    return load_network(
        "pytorchcv:resnet20_cifar10",
        weights=folder / "zoo.safetensors",
        mean=SPEC.mean,
        std=SPEC.std,
    )


def same_outputs(model, other, network):
    with torch.no_grad():
        return torch.equal(model(images(network)), other(images(network)))


@pytest.fixture
def saved(tmp_path):
    """A folder with the result of a module given in memory."""
    quantized(in_memory(), scheme()).save(tmp_path / "out")
    return tmp_path / "out"


def change_manifest(folder, **sections):
    path = folder / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | sections))


def refusal(kind, call, *arguments, **keywords):
    with pytest.raises(kind) as caught:
        call(*arguments, **keywords)
    return str(caught.value)


# ----------------------------------------------------------------------------- there and back


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("options", [{}, {"bits": "w2a8"}, {"first_last_bits": 8}], ids=str)
@pytest.mark.parametrize("origin", [from_file, from_zoo])
def test_result_of_a_named_network(tmp_path, origin, options, placement):
    network = origin(tmp_path)
    result = quantized(network, scheme(placement=placement, **options))
    result.save(tmp_path / "out")
    opened = open_result(tmp_path / "out")
    assert same_outputs(opened.model, result.model, network)
    assert same_outputs(load(str(tmp_path / "out")), result.model, network)
    assert opened.manifest == result.manifest
    assert opened.input == network.input
    assert (opened.samples, opened.teacher) == (None, None)
    assert not opened.model.training
    assert not any(p.requires_grad for p in opened.model.parameters())
    teacher = reopen_teacher(opened.manifest, None)
    assert same_outputs(teacher, network.module, network)


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_result_of_a_module_in_memory(tmp_path, placement):
    network = in_memory()
    result = quantized(network, scheme(placement=placement))
    result.save(tmp_path)
    # Its own weights and flags matter not, and stay as they are.
    architecture = tiny(seed=3).double()
    before = {name: tensor.clone() for name, tensor in architecture.state_dict().items()}
    opened = open_result(tmp_path, network=architecture)
    assert same_outputs(opened.model, result.model, network)
    assert same_outputs(load(tmp_path, network=tiny()), result.model, network)
    assert all(module.training for module in architecture.modules())
    assert all(p.requires_grad for p in architecture.parameters())
    after = architecture.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert reopen_teacher(opened.manifest, None) is None


def test_a_result_can_be_saved_again(tmp_path, saved):
    opened = open_result(saved, network=tiny())
    opened.save(tmp_path / "copy")
    for name in (STUDENT, MANIFEST):
        assert (tmp_path / "copy" / name).read_bytes() == (saved / name).read_bytes()


def test_a_file_network_given_as_module(tmp_path):
    result = quantized(from_file(tmp_path), scheme())
    result.save(tmp_path / "out")
    (tmp_path / "nets.py").unlink()
    opened = open_result(tmp_path / "out", network=tiny(seed=2))
    assert same_outputs(opened.model, result.model, from_file(tmp_path))


# ---------------------------------------------------------------------------------- the folder


def test_what_a_folder_holds(tmp_path):
    network = in_memory()
    samples = Samples(images(network), torch.tensor([0, 1, 2, 3]), torch.rand(4))
    result = quantized(network, scheme(), samples)
    (tmp_path / CHECKPOINT).mkdir()
    (tmp_path / CHECKPOINT / "state.pt").write_bytes(b"x")
    result.save(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {MANIFEST, STUDENT, SAMPLES}
    files = json.loads((tmp_path / MANIFEST).read_text())["files"]
    assert {name: entry["bytes"] for name, entry in files.items()} == {
        name: (tmp_path / name).stat().st_size for name in (STUDENT, SAMPLES)
    }


def test_equal_results_are_equal_bytes(tmp_path):
    for name in ("a", "b"):
        quantized(in_memory(), scheme()).save(tmp_path / name)
    assert (tmp_path / "a" / STUDENT).read_bytes() == (tmp_path / "b" / STUDENT).read_bytes()
    assert (tmp_path / "a" / MANIFEST).read_bytes() == (tmp_path / "b" / MANIFEST).read_bytes()


def test_folder_that_holds_a_result_already(saved):
    before = {path: path.read_bytes() for path in saved.iterdir()}
    for call in (quantized(in_memory(1), scheme()).save, claim_folder):
        assert refusal(ResultError, call, saved) == (
            f"{saved} already contains a result\n"
            "  where:  --out\n"
            "  remedy: give another folder, or delete this one"
        )
    assert {path: path.read_bytes() for path in saved.iterdir()} == before


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        text = refusal(ResultError, quantized(in_memory(), scheme()).save, folder)
        assert text.startswith("cannot make the folder: ")
        assert str(folder) in text


def test_only_results_of_the_same_teacher_are_removed(saved):
    mine, other = in_memory(0).weights_sha256, in_memory(1).weights_sha256
    (saved / LOG).mkdir()
    (saved / "notes.txt").write_text("mine")
    remove_result(saved, made_from=other)
    assert (saved / MANIFEST).exists()
    remove_result(saved, made_from=mine)
    assert [path.name for path in saved.iterdir()] == ["notes.txt"]
    remove_result(saved, made_from=mine)
    remove_result(saved / "absent", made_from=mine)


# ---------------------------------------------------------------------------- figures in it


def test_summary():
    assert quantized(in_memory(), scheme()).summary() == {
        "teacher": {"top1": 90.0},
        "ranges_only": {"top1": None},
        "student": {"top1": 80.0},
        "agreement": 85.0,
        "seconds": 2.0,
        "iterations": 3,
    }


def test_evaluate(tmp_path, saved):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
    np.savez(tmp_path / "set.npz", images=pixels, labels=np.arange(6) % 5)
    made = quantized(in_memory(), scheme("w8a8")).evaluate(tmp_path / "set.npz", limit=5)
    assert (made.n, made.agreement) == (5, 100.0)
    opened = open_result(saved, network=tiny()).evaluate(tmp_path / "set.npz")
    assert (opened.n, opened.agreement) == (6, None)
    assert opened.top1 is not None


# ---------------------------------------------------------------------------------- refusals


def test_folder_that_is_no_result(tmp_path):
    for call in (open_result, load):
        assert "is not a result of dreamquant" in refusal(ResultError, call, tmp_path)
        assert "is not a result of dreamquant" in refusal(ResultError, call, tmp_path / "absent")


def test_manifest_of_another_schema(saved):
    change_manifest(saved, schema=SCHEMA + 1)
    text = refusal(ResultError, open_result, saved, network=tiny())
    assert f"the manifest has schema {SCHEMA + 1}" in text


def test_manifest_cut_off(saved):
    content = (saved / MANIFEST).read_bytes()
    (saved / MANIFEST).write_bytes(content[: len(content) // 2])
    assert "is not JSON" in refusal(ResultError, open_result, saved, network=tiny())


@pytest.mark.parametrize(
    ("section", "value"),
    [
        (section, value)
        for section in ("network", "scheme", "files")
        for value in (None, [], {}, "x")
        # Without a scheme it is a network that was only distilled.
        if (section, value) != ("scheme", None)
    ],
    ids=str,
)
def test_damaged_sections(saved, section, value):
    change_manifest(saved, **{section: value})
    text = refusal(ResultError, open_result, saved, network=tiny())
    assert f"the manifest's section '{section}" in text


def test_damaged_name(saved):
    record = json.loads((saved / MANIFEST).read_text())["network"]
    change_manifest(saved, network={k: v for k, v in record.items() if k != "name"})
    assert "'name' is missing" in refusal(ResultError, open_result, saved)


def test_student_that_was_tampered_with(saved):
    tensors = load_file(saved / STUDENT)
    tensors["0.weight.codes"][0] ^= 1
    save_file(tensors, saved / STUDENT)
    assert refusal(ResultError, open_result, saved, network=tiny()) == (
        "student.safetensors is not the file that the manifest describes: its checksum differs\n"
        f"  where:  {saved / STUDENT}\n"
        "  remedy: quantize again or restore a copy"
    )


@pytest.mark.parametrize("kept", [0, 7, 100, -1])
def test_student_cut_off(saved, kept):
    content = (saved / STUDENT).read_bytes()
    (saved / STUDENT).write_bytes(content[:kept])
    text = refusal(ResultError, open_result, saved, network=tiny())
    assert text.startswith("student.safetensors is not a complete safetensors file")


def test_student_that_is_not_there(saved):
    (saved / STUDENT).unlink()
    text = refusal(ResultError, open_result, saved, network=tiny())
    assert text.startswith("cannot read student.safetensors")


def test_every_bit_of_the_student_is_watched_over(saved):
    content = bytearray((saved / STUDENT).read_bytes())
    for position in range(0, len(content), 97):
        damaged = content.copy()
        damaged[position] ^= 16
        (saved / STUDENT).write_bytes(damaged)
        text = refusal(ResultError, open_result, saved, network=tiny())
        assert "student.safetensors" in text


def test_module_in_memory_has_to_be_given(saved):
    assert refusal(NetworkError, open_result, saved) == (
        "the result was made from a Sequential given in memory\n"
        f"  where:  {saved}\n"
        "  remedy: pass that architecture: dreamquant.load(folder, network=module)"
    )


def wider():
    network = tiny()
    network[6] = nn.Linear(96, 6)
    return network


@pytest.mark.parametrize(
    ("network", "kind", "message"),
    [
        (wider, ResultError, "6.bias is float32 (5,) instead of float32 (6,)"),
        (lambda: tiny()[:5], ResultError, "6.bias is float32 (5,) instead of absent"),
        (lambda: nn.Flatten(), NetworkError, "runs no convolution or linear module"),
        (lambda: nn.Linear(7, 5), NetworkError, "Linear is not the architecture that was quant"),
        (lambda: nn.Conv2d(3, 5, 3), NetworkError, "runs no activation function"),
    ],
)
def test_another_architecture(saved, network, kind, message):
    assert message in refusal(kind, open_result, saved, network=network())


def test_file_that_has_changed_is_not_run(tmp_path):
    quantized(from_file(tmp_path), scheme()).save(tmp_path / "out")
    (tmp_path / "nets.py").write_text("raise SystemExit('this ran')")
    text = refusal(NetworkError, open_result, tmp_path / "out")
    assert "nets.py is not the file that this network was built from" in text


# ---------------------------------------------------------------------------------- the teacher


def test_teacher_whose_weights_have_moved(tmp_path):
    network = from_file(tmp_path)
    manifest = quantized(network, scheme()).manifest
    moved = (tmp_path / "weights.safetensors").rename(tmp_path / "moved.safetensors")
    assert reopen_teacher(manifest, None) is None
    assert same_outputs(reopen_teacher(manifest, moved), network.module, network)


def test_weights_that_are_not_the_teachers(tmp_path):
    manifest = quantized(from_file(tmp_path), scheme()).manifest
    other = tmp_path / "other.safetensors"
    save_file(tiny(seed=1).state_dict(), other)
    assert refusal(WeightsError, reopen_teacher, manifest, other) == (
        "these are not the weights that the result was made from\n"
        f"  where:  {other}\n"
        "  remedy: give --weights FILE with the teacher's weights"
    )
    save_file({"x": torch.zeros(1)}, other)
    assert "do not fit the network" in refusal(WeightsError, reopen_teacher, manifest, other)


def test_weights_named_that_are_not_there(tmp_path):
    manifest = quantized(from_file(tmp_path), scheme()).manifest
    text = refusal(WeightsError, reopen_teacher, manifest, tmp_path / "absent.safetensors")
    assert "the weights file does not exist" in text


def test_teacher_of_a_damaged_manifest(tmp_path):
    manifest = quantized(from_file(tmp_path), scheme()).manifest
    for damaged in ({}, manifest | {"network": None}):
        assert "is damaged" in refusal(ResultError, reopen_teacher, damaged, None)
