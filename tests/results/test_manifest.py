import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from torch import nn

from dreamquant.errors import ResultError
from dreamquant.methods import METHODS
from dreamquant.networks import demo
from dreamquant.networks.demo.network import digits
from dreamquant.networks.load import load_network, wrap_module
from dreamquant.networks.spec import InputSpec
from dreamquant.quantization.scheme import Bits, Scheme
from dreamquant.results.describe import (
    describe_machine,
    describe_method,
    describe_network,
    describe_protocol,
)
from dreamquant.results.manifest import (
    MANIFEST,
    SCHEMA,
    Origin,
    read_checksum,
    read_input,
    read_manifest,
    read_origin,
    read_scheme,
)
from dreamquant.terms.contract import weighted

SPEC = InputSpec((3, 8, 6), (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), 2, ("cat", "dog"), 9)
FOLDER = Path("folder")


def as_json(value):
    """What a manifest holds once it was written and read."""
    return json.loads(json.dumps(value, allow_nan=False))


def network():
    torch.manual_seed(0)
    return wrap_module(
        nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()), SPEC
    )


def manifest(**sections):
    return as_json(
        {
            "schema": SCHEMA,
            "phases": [],
            "prepared": [],
            "network": describe_network(network()),
            "scheme": asdict(Scheme(Bits(4, 4), overrides=(("a", Bits(2, 3)),))),
            "files": {"student.safetensors": {"sha256": "ab", "bytes": 1}},
        }
        | sections
    )


def refusal(read, *arguments):
    with pytest.raises(ResultError) as caught:
        read(*arguments)
    return str(caught.value)


# -------------------------------------------------------------------------------- describing


def test_network():
    teacher = network()
    assert as_json(describe_network(teacher)) == {
        "name": "Sequential",
        "weights": None,
        "weights_sha256": teacher.weights_sha256,
        "source_sha256": None,
        "input": {
            "shape": [3, 8, 6],
            "mean": [0.1, 0.2, 0.3],
            "std": [0.4, 0.5, 0.6],
            "num_classes": 2,
            "class_names": ["cat", "dog"],
            "resize": 9,
            "task": "classification",
            "outputs": ["logits"],
            "features": False,
            "bgr": False,
            "entry": "images",
            "form": "nchw",
            "centre": [],
            "spread": [],
        },
        "input_source": "the InputSpec given",
        "notes": [],
    }


@pytest.mark.parametrize("name", METHODS)
def test_methods_are_told_in_plain_values(name):
    method = METHODS[name].resolved("quick", (3, 32, 32))
    told = as_json(describe_method(method, "quick"))
    assert (told["name"], told["preset"]) == (name, "quick")
    assert told["paper"]["title"]
    assert told["iterations"] == method.iterations
    kinds = [type(part).__name__ for part in method.recovery]
    assert [part["part"] for part in told["recovery"]] == kinds
    assert (told["images"] is None) == (method.images is None)
    parts = list(zip(told["recovery"], method.recovery, strict=True))
    if method.images is not None:
        assert told["images"]["part"] == type(method.images).__name__
        parts.append((told["images"], method.images))
    for part, own in parts:
        assert all(part[name] == getattr(own, name) for name in ("lr", "batch") if name in part)
        terms = own.terms if "terms" in part else ()
        names = [(term.weight, term.name) for term in weighted(terms)]
        assert [(term["weight"], term["part"]) for term in part.get("terms", ())] == names


PROTOCOL = {
    "bits": "w4a4",
    "first_last_bits": "w4a4",
    "overrides": {},
    "placement": "relu-output",
    "weights": "affine, per output channel, min-max",
    "activations": "affine, per tensor, static, moving min-max",
    "gradient": "straight-through",
    "batch_norm": "float, the teacher's statistics",
    "iteration": "last",
    "seed": 7,
    "training_precision": "32",
    "accumulate": 1,
}


SYMMETRIC = "affine, per output channel, min-max, symmetric at 8 bits"
SAFE = f"{SYMMETRIC}, 8-bit weights in 7-bit range, safe without VNNI"
ENDS = {"placement": "layer-input", "first_last_bits": 8}


@pytest.mark.parametrize(
    ("options", "changed"),
    [
        ({}, {}),
        ({"first_last_bits": 8}, {"first_last_bits": 8, "weights": SYMMETRIC}),
        ({"placement": "layer-input"}, {"placement": "layer-input"}),
        (ENDS, ENDS | {"weights": SAFE}),
        (ENDS | {"weights_range": "full"}, ENDS | {"weights": SYMMETRIC}),
        ({"gradient": "clipped"}, {"gradient": "clipped"}),
        (
            {"ranges": "learned"},
            {
                "weights": "affine, per output channel, learned step size",
                "activations": "affine, per tensor, static, learned step size",
                "gradient": "clipped",
            },
        ),
        ({"overrides": (("a*", Bits(8, 8)),)}, {"overrides": {"a*": "w8a8"}, "weights": SYMMETRIC}),
    ],
)
def test_protocol(options, changed):
    teacher = network()
    told = protocol(teacher, "quick", **options)
    assert told == PROTOCOL | {"teacher_sha256": teacher.weights_sha256} | changed


def protocol(teacher, preset, **options):
    scheme, method = Scheme(Bits(4, 4), **options), METHODS["gdfq"].resolved(preset, SPEC.shape)
    told = describe_protocol(teacher, scheme, method, seed=7, precision="32", accumulate=1)
    return as_json(told)


def test_batch_norms_that_are_re_estimated_are_on_record():
    told = protocol(network(), "quick-imagenet")
    assert told["batch_norm"] == (
        "float, the teacher's statistics, moved and stretched as rounding moved and stretched "
        "their channels on synthetic images"
    )


def test_machine():
    told = as_json(describe_machine(torch.device("cpu")))
    assert torch.__version__.startswith(told["versions"]["torch"])
    assert {"python", "dreamquant"} <= set(told["versions"])
    assert told["hardware"]["device"] == "cpu"
    assert told["hardware"]["cpu"]


# ----------------------------------------------------------------------------------- reading


@pytest.mark.parametrize(
    "spec",
    [SPEC, InputSpec((1, 2, 3), (0.0,), (1 / 3,), 1000)],
)
def test_input_is_read_as_it_was(spec):
    assert read_input(as_json({"network": {"input": asdict(spec)}}), FOLDER) == spec


@pytest.mark.parametrize(
    "scheme",
    [
        Scheme(Bits(3, 5)),
        Scheme(Bits(2, 8), "layer-input", 8, "learned", "clipped", 0.99),
        Scheme(Bits(4, 4), overrides=(("b*", Bits(8, 2)), ("a", Bits(2, 8)))),
    ],
)
def test_scheme_is_read_as_it_was(scheme):
    assert read_scheme(as_json({"scheme": asdict(scheme)}), FOLDER) == scheme


def test_origin_and_checksum_are_read():
    teacher = network()
    origin = Origin("Sequential", None, teacher.weights_sha256, None)
    assert read_origin(manifest(), FOLDER) == origin
    assert read_checksum(manifest(), "student.safetensors", FOLDER) == "ab"


def test_folder_that_is_no_result(tmp_path):
    for folder in (tmp_path, tmp_path / "absent"):
        assert refusal(read_manifest, folder) == (
            f"{folder} is not a result of dreamquant: it has no manifest.json\n"
            f"  where:  {folder}\n"
            "  remedy: give the --out folder of a finished run"
        )


@pytest.mark.parametrize("schema", [None, 0, SCHEMA + 1, str(SCHEMA), [SCHEMA]])
def test_another_schema(tmp_path, schema):
    path = tmp_path / MANIFEST
    path.write_text(json.dumps({} if schema is None else {"schema": schema}))
    assert refusal(read_manifest, tmp_path) == (
        f"the manifest has schema {schema!r}, this version reads {SCHEMA}\n"
        f"  where:  {path}\n"
        "  remedy: use the version of dreamquant that wrote it"
    )


@pytest.mark.parametrize("content", [b"", b"{", b'{"schema": 1', b"[]", b"1", b"\xff\xfe{}"])
def test_manifest_that_is_no_json_object(tmp_path, content):
    (tmp_path / MANIFEST).write_bytes(content)
    text = refusal(read_manifest, tmp_path)
    assert text.startswith("manifest.json ")
    assert str(tmp_path) in text


def test_manifest_is_read_whole(tmp_path):
    (tmp_path / MANIFEST).write_text(json.dumps(manifest()))
    assert read_manifest(tmp_path) == manifest()


INPUT = as_json(asdict(SPEC))
NETWORK = {"name": "n", "weights": None, "weights_sha256": "a", "source_sha256": None}
SCHEME = as_json(asdict(Scheme(Bits(4, 4))))
BROKEN = [
    *((read_input, "network", value) for value in (None, "x", 3, [], {})),
    *((read_input, "network", {"input": value}) for value in (None, "x", 3, [], {})),
    *(
        (read_input, "network", {"input": INPUT | change})
        for change in (
            {"shape": None},
            {"shape": [3, 32]},
            {"shape": ["3", "8", "6"]},
            {"mean": [0.5]},
            {"mean": ["a", "b", "c"]},
            {"std": [0, 0, 0]},
            {"num_classes": "2"},
            {"num_classes": 1},
            {"class_names": ["cat"]},
            {"colour": "red"},
        )
    ),
    *((read_scheme, "scheme", value) for value in ("w4a4", 3, [], {})),
    *(
        (read_scheme, "scheme", SCHEME | change)
        for change in (
            {"bits": None},
            {"bits": "w4a4"},
            {"bits": {"weight": 4}},
            {"bits": {"weight": 4, "activation": 40}},
            {"bits": {"weight": "4", "activation": "4"}},
            {"placement": "nowhere"},
            {"ranges": None},
            {"first_last_bits": 99},
            {"overrides": None},
            {"overrides": [["a"]]},
            {"overrides": [["a", "w4a4"]]},
            {"colour": "red"},
        )
    ),
    *((read_origin, "network", value) for value in (None, "x", 3, [], {})),
    *((read_origin, "network", {k: v for k, v in NETWORK.items() if k != n}) for n in NETWORK),
    (read_origin, "network", NETWORK | {"name": None}),
]


@pytest.mark.parametrize(("read", "section", "value"), BROKEN)
def test_damaged_sections(read, section, value):
    for damaged in (manifest(**{section: value}), {}):
        text = refusal(read, damaged, FOLDER)
        assert text.startswith(f"the manifest's section '{section}")
        assert "is damaged: " in text
        assert text.endswith(
            f"\n  where:  {FOLDER / MANIFEST}\n  remedy: quantize again or restore a copy"
        )


@pytest.mark.parametrize(
    "value", [None, "x", 3, [], {}, {"student.safetensors": None}, {"student.safetensors": {}}]
)
def test_checksum_that_is_not_there(value):
    text = refusal(read_checksum, manifest(files=value), "student.safetensors", FOLDER)
    assert text.startswith("the manifest's section 'files' is damaged: ")


def test_files_are_on_record_by_their_whole_path(monkeypatch):
    monkeypatch.chdir(demo.NETWORK.parent)
    network = load_network(
        f"{demo.NETWORK.name}:digits",
        weights=Path(demo.WEIGHTS.name),
        shape=demo.INPUT.shape,
        mean=demo.INPUT.mean,
        std=demo.INPUT.std,
    )
    record = describe_network(network)
    assert record["name"] == f"{demo.NETWORK.resolve()}:digits"
    assert record["weights"] == str(demo.WEIGHTS.resolve())


def test_modules_and_zoos_are_on_record_by_their_name():
    network = wrap_module(digits(), demo.INPUT)
    assert describe_network(network)["name"] == "Sequential"
