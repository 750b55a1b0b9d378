"""Remedies of errors about options, each done as it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tiny
from dreamquant import InputSpec, quantize
from dreamquant.cli.options import Expected
from dreamquant.cli.reading import one_of, parse_numbers, parse_shape, refuse
from dreamquant.jobs.request import DreamRequest, QuantizeRequest, asked
from dreamquant.jobs.run_request import RunRequest
from dreamquant.quantization.scheme import Bits, Scheme
from dreamquant.text import parse_duration, parse_points, parse_size
from dreamquant.training.devices import require_device
from dreamquant.training.turns import require_equal_parts
from remedies import Trial, advises, command, quantized
from tiny_runs import tiny_network

W4A4 = Bits.parse("w4a4")
SHAPE = "3x32x32, or the sides of a feature map, such as 98x40"


def spec(**changed: Any) -> InputSpec:
    """An input, with other numbers."""
    given: dict[str, Any] = {"shape": (3, 8, 8), "mean": (0.0,) * 3, "std": (1.0,) * 3}
    return InputSpec(**given | {"num_classes": 4} | changed)


def of_feature_maps(shape: tuple[int, ...]) -> InputSpec:
    """An input with one mean."""
    return spec(shape=shape, mean=(0.0,), std=(1.0,))


def request(**options: Any) -> Any:
    """Asks for a run."""
    return lambda _: QuantizeRequest(**options)


TRIALS = [
    # ------------------------------------------------------------- texts of the command line
    Trial(
        "cli/reading.py:parse_shape",
        lambda _: parse_shape("32x"),
        SHAPE,
        lambda _: (parse_shape("3x32x32"), parse_shape("98x40")),
    ),
    Trial(
        "cli/reading.py:parse_numbers",
        lambda _: parse_numbers("0.485;0.456;0.406", "--mean"),
        "separate numbers by commas, for example 0.485,0.456,0.406",
        lambda _: parse_numbers("0.485,0.456,0.406", "--mean"),
    ),
    Trial(
        "cli/reading.py:one_of: twice",
        lambda _: one_of("a", "b"),
        "give them once",
        lambda _: (one_of("a", None), one_of(None, "b")),
    ),
    Trial(
        "cli/reading.py:one_of: no images",
        lambda _: one_of(None, None),
        "give --data IMAGES",
        lambda _: one_of(None, "IMAGES"),
    ),
    Trial(
        "cli/reading.py:refuse",
        lambda _: refuse(Expected(classes=10)),
        "leave these options out",
        lambda _: refuse(Expected()),
    ),
    Trial(
        "text.py:parse_duration: is not",
        lambda _: parse_duration("soon"),
        "write 90s, 5min or 1.5h",
        lambda _: [*map(parse_duration, ("90s", "5min", "1.5h"))],
    ),
    Trial(
        "text.py:parse_duration: leaves",
        lambda _: parse_duration("0s"),
        "write 5min",
        lambda _: parse_duration("5min"),
    ),
    Trial(
        "text.py:parse_size",
        lambda _: parse_size("small"),
        "write it like 1.2MB",
        lambda _: parse_size("1.2MB"),
    ),
    Trial(
        "text.py:parse_points",
        lambda _: parse_points("few"),
        "write it like 1 or 0.5",
        lambda _: (parse_points("1"), parse_points("0.5")),
    ),
    # ------------------------------------------------------------------------------ requests
    Trial(
        "jobs/request.py:__post_init__: one goal",
        request(bits="auto"),
        "give --bits auto with either --size or --max-drop",
        lambda _: (
            QuantizeRequest(bits="auto", size="1MB"),
            QuantizeRequest(bits="auto", max_drop="1"),
        ),
    ),
    Trial(
        "jobs/request.py:__post_init__: too few",
        lambda _: DreamRequest(count=0),
        "give 1 or more",
        lambda _: DreamRequest(count=1),
    ),
    Trial(
        "jobs/request.py:asked",
        lambda _: asked(QuantizeRequest, {"iteration": 3}),
        "did you mean 'iterations'?",
        lambda _: asked(QuantizeRequest, {"iterations": 3}),
    ),
    Trial(
        "jobs/request.py:_parse_override",
        lambda _: QuantizeRequest(override=("8",)).overrides,
        "write PATTERN=w8a8",
        lambda folder: quantized(folder, override=("8=w8a8",)),
    ),
    Trial(
        "jobs/run_request.py:__post_init__: too few",
        request(iterations=0),
        "give 1 or more",
        request(iterations=1),
    ),
    Trial(
        "jobs/run_request.py:__post_init__: both",
        request(iterations=5, budget="5min"),
        "give one of them",
        lambda _: (QuantizeRequest(iterations=5), QuantizeRequest(budget="5min")),
    ),
    Trial(
        "jobs/run_request.py:__post_init__: seed",
        request(seed=-1),
        "give a number from 0 to 4294967295",
        request(seed=4294967295),
    ),
    Trial(
        "jobs/resume.py:open_folder: nothing",
        lambda f: quantized(f, resume=True),
        "give the folder of the stopped run",
        lambda f: quantized(f, resume=True, out="out"),
    ),
    Trial(
        "jobs/quantize.py:_resolved",
        lambda f: quantized(f, batch_norm="re-estimated"),
        "leave it out",
        quantized,
    ),
    Trial(
        "jobs/quantize.py:_for_task",
        lambda f: quantize(
            tiny_network(),
            "w8a8",
            "squant",
            input=multi_label(),
            diagnostics=True,
            device="cpu",
            quiet=True,
        ),
        "leave the option out",
        lambda f: quantize(
            tiny_network(), "w8a8", "squant", input=multi_label(), device="cpu", quiet=True
        ),
    ),
    Trial(
        "jobs/quantize.py:_open",
        lambda f: quantize(tiny_network(), "w8a8", "squant"),
        "give input=InputSpec(shape, mean, std, num_classes)",
        lambda f: quantize(
            tiny_network(),
            "w8a8",
            "squant",
            device="cpu",
            quiet=True,
            input=InputSpec((1, 8, 8), (0.5,), (0.25,), 5),
        ),
    ),
    # ------------------------------------------------------------------------------- devices
    Trial(
        "training/devices.py:require_device: not a device",
        lambda _: require_device("gpu", "auto", None),
        "choose auto, cpu or cuda",
        lambda _: (require_device("auto", "auto", None), require_device("cpu", "auto", None)),
    ),
    Trial(
        "training/devices.py:require_device: not a precision",
        lambda _: require_device("cpu", "16", None),
        "choose auto, 32 or bf16",
        lambda _: [require_device("cpu", each, None) for each in ("auto", "32", "bf16")],
    ),
    Trial(
        "training/devices.py:require_device: threads",
        lambda _: require_device("cpu", "auto", 0),
        "give 1 or more",
        lambda _: require_device("cpu", "auto", 1),
    ),
    Trial(
        "training/turns.py:require_equal_parts",
        lambda _: require_equal_parts(16, 3, 1),
        "choose numbers whose product divides the batch",
        lambda _: require_equal_parts(16, 2 * 4, 1),
    ),
    # -------------------------------------------------------------------------------- scheme
    Trial(
        "quantization/scheme.py:__post_init__: not supported",
        lambda _: Bits(1, 4),
        "choose 2 to 8 bits for weights and for activations",
        lambda _: (Bits(2, 2), Bits(8, 8)),
    ),
    Trial(
        "quantization/scheme.py:parse",
        lambda _: Bits.parse("4"),
        "write weights and activations like w4a4 or w8a8",
        lambda _: (Bits.parse("w4a4"), Bits.parse("w8a8")),
    ),
    Trial(
        "quantization/scheme.py:__post_init__: not a choice",
        lambda _: Scheme(W4A4, placement="inputs"),
        "layer-input",  # type: ignore[arg-type]
        lambda _: Scheme(W4A4, placement="layer-input"),
    ),
    Trial(
        "quantization/scheme.py:__post_init__: softmax",
        lambda f: quantized(f, softmax="log2", placement="layer-input", scheme="integer"),
        "use --placement operands",
        lambda f: quantized(f, softmax="log2", placement="operands", scheme="integer"),
    ),
    Trial(
        "quantization/scheme.py:__post_init__: integer kernel",
        lambda f: quantized(f, method="granq", iterations=2, scheme="integer"),
        "use --scheme paper, or a method whose ranges are static",
        lambda f: (
            quantized(f, method="granq", iterations=2, scheme="paper"),
            quantized(f, scheme="integer"),
        ),
    ),
    Trial(
        "quantization/scheme.py:__post_init__: stored between",
        lambda f: quantized(f, elementwise=8, placement="relu-output", scheme="paper"),
        "add --placement layer-input",
        lambda f: quantized(f, elementwise=8, placement="layer-input"),
    ),
    Trial(
        "quantization/scheme.py:_require_bits",
        lambda f: quantized(f, first_last=9),
        "choose 2 to 8 bits",
        lambda f: quantized(f, first_last=8),
    ),
    Trial(
        "quantization/convert.py:_require_quantizable: matches no layer",
        lambda f: quantized(f, override=("head=w8a8",)),
        "layers are named 0, 3, 8",
        lambda f: [quantized(f, override=(f"{name}=w8a8",)) for name in ("0", "3", "8")],
    ),
    # --------------------------------------------------------------------------------- input
    Trial(
        "networks/spec.py:__post_init__: is not an input shape",
        lambda _: spec(shape=(0, 8, 8)),
        SHAPE,
        lambda _: (spec(shape=(3, 32, 32)), of_feature_maps((98, 40))),
    ),
    Trial(
        "networks/spec.py:__post_init__: too large",
        lambda _: spec(shape=(3, 90_000, 90_000)),
        "give a shape of at most",
        lambda _: spec(shape=(3, 512, 512)),
    ),
    Trial(
        "networks/spec.py:__post_init__: input channels",
        lambda _: spec(mean=(0.5,)),
        "give one number per channel",
        lambda _: spec(mean=(0.5, 0.5, 0.5)),
    ),
    Trial(
        "networks/spec.py:__post_init__: contains a value that is not a finite number",
        lambda _: spec(mean=(np.nan,) * 3),
        "give finite numbers",
        lambda _: spec(),
    ),
    Trial(
        "networks/spec.py:__post_init__: not positive",
        lambda _: spec(std=(0.0,) * 3),
        "give numbers above 0",
        lambda _: spec(std=(0.1,) * 3),
    ),
    Trial(
        "networks/spec.py:__post_init__: classes",
        lambda _: spec(num_classes=1),
        "give at least 2",
        lambda _: spec(num_classes=2),
    ),
    Trial(
        "networks/spec.py:__post_init__: has no colour channels",
        lambda _: spec(shape=(1, 8, 8), mean=(0.0,), std=(1.0,), bgr=True),
        "leave the option out",
        lambda _: (of_feature_maps((1, 8, 8)), spec(bgr=True)),
    ),
    Trial(
        "networks/spec.py:__post_init__: class names",
        lambda _: spec(class_names=("a",)),
        "give one name per class, or none",
        lambda _: (spec(class_names=("a", "b", "c", "d")), spec()),
    ),
]


def multi_label() -> InputSpec:
    """Of the tiny network, with independent labels."""
    return InputSpec(tiny.INPUT.shape, (0.5,), (0.25,), tiny.CLASSES, task="multi-label")


@pytest.mark.parametrize("trial", TRIALS, ids=lambda trial: trial.site)
def test_what_a_remedy_advises_works(trial: Trial, tmp_path: Path) -> None:
    trial.run(tmp_path)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there(tmp_path: Path) -> None:
    with advises("training/devices.py:require_device: no CUDA", "use --device auto or cpu; `dream"):
        quantized(tmp_path, device="cuda")
    quantized(tmp_path, device="auto")
    command("doctor")


def test_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with advises("cli/ending.py:_usage_error", "`dreamquant quantize --help` shows what it takes"):
        command("quantize", "--widths", "3")
    command("quantize", "--help")
    assert "--bits" in capsys.readouterr().out


def test_a_request_needs_no_option() -> None:
    assert RunRequest().record() == {"seed": 0}
