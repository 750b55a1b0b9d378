"""What exported files compute on processors of several kinds: codes, accuracy and speed.

    python benchmarks/processors.py            # what is not on record yet, about ten minutes
    python benchmarks/processors.py --only accuracy
    python benchmarks/processors.py --only checks     # make test and make demo, twenty minutes

ResNet-20 for CIFAR-10 is quantized by SQuant, exported, and run by each runtime on this processor,
on the same one as if it had fewer instruction sets (``tools/as_processor.py``), in kernels that
leave them unused, and on an emulated processor with AVX2 alone (qemu-user). Every layer gets the
student's own codes, so that an error counts where it is made.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from json import loads
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from dreamquant import Network, export_result, load_network, open_result, quantize
from dreamquant.evaluation.data import open_images
from dreamquant.evaluation.metrics import evaluate
from dreamquant.export.compare import compare_codes, record
from dreamquant.export.saturation import layers_that_may_saturate
from dreamquant.export.verify import forced_network
from dreamquant.results.describe import describe_machine
from dreamquant.results.files import read_json, write_json
from grid import DATA, ROOT, cifar, imagenet
from pages import RESULTS, write_page
from processors_page import page

PATH = RESULTS / "processors.json"
COMPARED, CLASSIFIED, RUNS = 8, 200, 200
_EMULATOR = "qemu-x86_64"
_AS = (sys.executable, str(Path(__file__).parents[1] / "tools" / "as_processor.py"))
# The lines of pytest and of the demo that tell how it ended.
_SAID = re.compile(r"\d+ passed|^FAILED |^(time|full precision|after recovery) ")
_RUN = Path(__file__).with_name("bare_run.py")
_CODES = re.compile(r"(?P<quantizer>.+)\.(?P<call>\d+)\.(quantize|clip)")


@dataclass(frozen=True)
class Kind:
    """A processor, or the part of this one that runtimes may use.

    Attributes:
        before: the command that runs another one on it.
        needs: programs that must be installed.
        environment: variables that restrict a runtime.
        runtimes: that it can be measured for.
        timed: whether its speed tells something of real processors.
    """

    before: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    runtimes: tuple[str, ...] = ("onnxruntime", "openvino")
    timed: bool = True


KINDS = {
    "native": Kind(),
    "without VNNI": Kind(before=(*_AS, "avx512"), needs=("gcc", "objdump", "unshare")),
    "AVX2 alone": Kind(before=(*_AS, "avx2"), needs=("gcc", "objdump", "unshare")),
    "AVX-512 kernels": Kind(
        environment={"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"}, runtimes=("openvino",)
    ),
    "AVX2 kernels": Kind(environment={"ONEDNN_MAX_CPU_ISA": "AVX2"}, runtimes=("openvino",)),
    "AVX2 emulated": Kind(
        before=(_EMULATOR, "-cpu", "Haswell-noTSX"), needs=(_EMULATOR,), timed=False
    ),
}


@dataclass(frozen=True)
class Scheme:
    """How ResNet-20 is quantized."""

    bits: str
    elementwise: int
    weights_range: str


SCHEMES = (
    Scheme("w8a8", 8, "safe"),
    Scheme("w8a8", 8, "full"),
    Scheme("w8a7", 8, "safe"),
    Scheme("w8a7", 8, "full"),
    Scheme("w8a7", 7, "full"),
    Scheme("w7a8", 8, "full"),
)


def measure_files(scheme: Scheme, missing: list[tuple[str, str]], folder: Path) -> list[Any]:
    """One scheme's file in all kinds of processors and runtimes that are missing."""
    network, source = cifar(DATA, "cifar10_resnet20")
    quantize(network, method="squant", out=folder, device="cpu", precision="32", **asdict(scheme))
    result = open_result(folder, network=network.module)
    (file,) = export_result(result, ("int8box",), to=folder)
    opened = open_images(source, network.input, limit=CLASSIFIED)
    assert opened.labels is not None
    images = torch.cat(list(opened.batches(CLASSIFIED)))
    codes, tied, _ = record(result.model, images[:COMPARED])
    model = onnx.load(file.path)
    names = {int(found["call"]): name for name, found in _tensors_of_codes(model)}
    (folder / "forced.onnx").write_bytes(forced_network(model, names))
    feed: dict[str, Any] = {f"forced/{name}": codes[call] for call, name in names.items()}
    np.savez(folder / "forced.npz", images=images[:COMPARED].numpy(), **feed)
    np.savez(folder / "images.npz", images=images.numpy())
    with torch.no_grad():
        student = _top1(result.model(images).numpy(), opened.labels)
    known = {
        **asdict(scheme),
        "student_top1": student,
        "float32_top1": evaluate(network.module, opened).top1,
        "layers_that_may_saturate": len(layers_that_may_saturate(model)),
        "exact_on": [] if file.verification is None else list(file.verification.exact_on),
    }
    runs = []
    for kind, runtime in missing:
        given = _run(kind, runtime, folder, "forced")
        differences = [
            compare_codes(given[name], codes[call], tied[call], name)
            for call, name in names.items()
            if name in given
        ]
        answers = _run(kind, runtime, folder, "images")
        runs.append(
            {
                "kind": kind,
                "runtime": runtime,
                **known,
                "codes": sum(difference.size for difference in differences),
                "differ": sum(difference.flips for difference in differences),
                "largest": max(difference.largest for difference in differences),
                "quantizers_beyond_rounding": sum(not each.tolerable for each in differences),
                "top1": _top1(answers["logits"], opened.labels),
                "speedup": _speedup(kind, runtime, file.path) if KINDS[kind].timed else None,
                **describe_machine(torch.device("cpu")),
            }
        )
    return runs


def _tensors_of_codes(model: onnx.ModelProto) -> list[tuple[str, re.Match[str]]]:
    read = [node.input[0] for node in model.graph.node if node.op_type == "DequantizeLinear"]
    found = ((name, _CODES.fullmatch(name)) for name in dict.fromkeys(read))
    return [(name, match) for name, match in found if match is not None]


def _top1(logits: Any, labels: torch.Tensor) -> float:
    return 100 * float((torch.from_numpy(logits).argmax(1) == labels).float().mean())


def _run(kind: str, runtime: str, folder: Path, what: str) -> dict[str, Any]:
    """What a file answers on a kind of processor, by name of output."""
    path = folder / ("forced.onnx" if what == "forced" else "model.int8box.onnx")
    answers = folder / "answers.npz"
    arguments = [runtime, str(path), str(folder / f"{what}.npz"), str(answers)]
    _finished([*KINDS[kind].before, sys.executable, str(_RUN), *arguments], kind)
    return dict(np.load(answers))


def _speedup(kind: str, runtime: str, path: Path) -> float:
    """Of the file against the same network in FP32, by `dreamquant benchmark` on one thread."""
    code = "from dreamquant.cli.main import main; main()"
    options = ["--runtime", runtime, "--threads", "1", "--runs", str(RUNS), "--json"]
    command = [*KINDS[kind].before, sys.executable, "-c", code, "benchmark", str(path), *options]
    return float(loads(_finished(command, kind))["speedup"])


def _finished(command: list[str], kind: str) -> str:
    environment = os.environ | KINDS[kind].environment
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{kind}: {' '.join(command)} failed:\n{done.stderr}")
    return done.stdout


def efficientnet(data: Path) -> tuple[Network, Path]:
    """EfficientNet-Lite0, and the same images of ImageNet as MobileNetV1's."""
    network = load_network(
        f"{data / 'zoo' / 'imagenet_efficientnet_lite0.py'}:make",
        weights=data / "zoo" / "imagenet_efficientnet_lite0.safetensors",
        shape=(3, 224, 224),
        mean=(127 / 255,) * 3,
        std=(128 / 255,) * 3,
    )
    cropped = replace(network, input=replace(network.input, resize=256))
    return cropped, data / "imagenet" / "samples1000_256.tar"


# Networks with how many images they are measured on.
NETWORKS: dict[str, tuple[Callable[[Path], tuple[Network, Path]], int]] = {
    "ResNet-20": (lambda data: cifar(data, "cifar10_resnet20"), 2000),
    "MobileNetV1 0.75": (imagenet, 300),
    "EfficientNet-Lite0": (efficientnet, 300),
}


def measure_accuracy(name: str, method: str, weights_range: str) -> dict[str, Any]:
    """Top-1 of a network at W8A8 in PyTorch, and how often it agrees with its teacher."""
    load, count = NETWORKS[name]
    network, source = load(DATA)
    result = quantize(
        network, "w8a8", method, weights_range=weights_range, device="cpu", precision="32"
    )
    images = open_images(source, network.input, limit=count)
    found = evaluate(result.model, images, teacher=network.module)
    return {
        "network": name,
        "method": method,
        "weights_range": weights_range,
        "images": count,
        "float32_top1": evaluate(network.module, images).top1,
        "top1": found.top1,
        "agreement": found.as_json()["agreement"],
        "protocol": result.manifest["protocol"],
    }


def measure_check(target: str) -> dict[str, Any]:
    """What `make test` or `make demo` says at its end, as with AVX2 alone, and its time.

    A make target that fails is on record as well.
    """
    kind = "AVX2 alone"
    load, start, before = os.getloadavg()[0], time.monotonic(), _child_seconds()
    done = subprocess.run(
        [*KINDS[kind].before, "make", target], cwd=ROOT, capture_output=True, text=True, check=False
    )
    said = [line.strip() for line in done.stdout.splitlines() if _SAID.search(line)]
    return {
        "kind": kind,
        "target": target,
        "passed": done.returncode == 0,
        "said": said,
        "seconds": time.monotonic() - start,
        "cpu_seconds": _child_seconds() - before,
        "load_before": load,
        **describe_machine(torch.device("cpu")),
    }


def _child_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _missing_cells(runs: list[dict[str, Any]], scheme: Scheme) -> list[tuple[str, str]]:
    done = {(run["kind"], run["runtime"]) for run in runs if asdict(scheme).items() <= run.items()}
    kinds = [kind for kind, known in KINDS.items() if all(map(shutil.which, known.needs))]
    cells = [(kind, runtime) for kind in kinds for runtime in KINDS[kind].runtimes]
    return [cell for cell in cells if cell not in done]


def _place(run: dict[str, Any]) -> tuple[int, int, str]:
    """Where a run stands on the page."""
    scheme = Scheme(run["bits"], run["elementwise"], run["weights_range"])
    return SCHEMES.index(scheme), list(KINDS).index(run["kind"]), run["runtime"]


def main() -> None:
    """Measure what is not on record, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=("files", "accuracy", "checks"))
    only = parser.parse_args().only
    torch.set_num_threads(1)
    known: dict[str, Any] = {"title": "Processors", "runs": [], "accuracy": [], "checks": []}
    if PATH.exists():
        known |= read_json(PATH)

    def keep() -> None:
        write_json(PATH, known)
        write_page(PATH, page(known["runs"], known["accuracy"], known["checks"]))

    for scheme in SCHEMES if only in (None, "files") else ():
        if missing := _missing_cells(known["runs"], scheme):
            with tempfile.TemporaryDirectory() as folder:
                known["runs"] += measure_files(scheme, missing, Path(folder) / "out")
                known["runs"].sort(key=_place)
            keep()
    cells = product(NETWORKS, ("squant", "nagel"), ("safe", "full"))
    for cell in cells if only in (None, "accuracy") else ():
        if any((r["network"], r["method"], r["weights_range"]) == cell for r in known["accuracy"]):
            continue
        known["accuracy"].append(measure_accuracy(*cell))
        keep()
    for target in ("test", "demo") if only == "checks" else ():
        others = [check for check in known["checks"] if check["target"] != target]
        known["checks"] = [*others, measure_check(target)]
        keep()
    keep()


if __name__ == "__main__":
    main()
