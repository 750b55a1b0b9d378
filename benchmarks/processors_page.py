"""The page of results that `processors.py` writes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

Run = dict[str, Any]
_RUNTIMES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}


def page(runs: Sequence[Run], accuracy: Sequence[Run], checks: Sequence[Run]) -> Iterable[str]:
    """Lines of the page.

    Args:
        runs: of files, one for each scheme, kind of processor and runtime.
        accuracy: of students in PyTorch, one for each network, method and range.
        checks: of `make test` and `make demo`.
    """
    yield "# Exported files on several kinds of processors"
    if runs:
        yield ""
        yield from _files(runs)
    if accuracy:
        yield ""
        yield from _costs(accuracy)
    if checks:
        yield ""
        yield from _checks(checks)


def _files(runs: Sequence[Run]) -> Iterable[str]:
    yield (
        "| bits | element-wise | weights range | processor | runtime | codes that differ | of | by "
        "up to | quantizers beyond rounding | top-1 | student | speed to FP32 |"
    )
    yield "|---|--:|---|---|---|--:|--:|--:|--:|--:|--:|--:|"
    for run in runs:
        speed = "" if run["speedup"] is None else f"{run['speedup']:.2f} ×"
        yield (
            f"| {run['bits'].upper()} | {run['elementwise']} | {run['weights_range']} | "
            f"{run['kind']} | {_RUNTIMES[run['runtime']]} | {run['differ']} | {run['codes']} | "
            f"{run['largest']} | {run['quantizers_beyond_rounding']} | {run['top1']:.1f} | "
            f"{run['student_top1']:.1f} | {speed} |"
        )
    first = runs[0]
    yield ""
    yield (
        "ResNet-20 for CIFAR-10, quantized by SQuant (placement layer-input, bits of element-wise "
        "inputs as named, seed 0), `int8box` file. Codes: of 8 test images, all activation "
        "quantizers, where each layer gets the student's own codes; one in a thousand may differ "
        "by one, since a value between two codes goes either way, and a quantizer beyond that is "
        "counted. Top-1 in percent of 200 test images (full precision "
        f"{first['float32_top1']:.1f}); student: the same images in PyTorch."
    )
    yield ""
    yield (
        "Processors: native is this machine's "
        f"({first['hardware']['cpu']}; {', '.join(first['hardware']['instruction_sets'])}); "
        "without VNNI and AVX2 alone are the same, where libraries are told so when they ask for "
        "the instruction sets (`tools/as_processor.py`), at full speed; AVX-512 kernels and AVX2 "
        "kernels are OpenVINO with `ONEDNN_MAX_CPU_ISA` of `AVX512_CORE` and `AVX2`; AVX2 emulated "
        "is `qemu-x86_64 -cpu Haswell-noTSX`, whose speed tells nothing. Speed to FP32: how many "
        "times as fast as the same network in FP32 in the same runtime, medians of 200 runs of "
        "each in turns, batch 1, one thread; other work ran on the machine."
    )
    yield ""
    yield from _reasons(runs)


def _reasons(runs: Sequence[Run]) -> Iterable[str]:
    schemes = {(r["bits"], r["elementwise"], r["weights_range"]): r for r in runs}
    yield "| bits | element-wise | weights range | layers that may saturate | exact on |"
    yield "|---|--:|---|--:|---|"
    for (bits, elementwise, weights_range), run in schemes.items():
        yield (
            f"| {bits.upper()} | {elementwise} | {weights_range} | "
            f"{run['layers_that_may_saturate']} | {', '.join(run['exact_on'])} |"
        )
    yield ""
    yield "By the static check of each file; it does not depend on the machine of the export."


def _costs(accuracy: Sequence[Run]) -> Iterable[str]:
    yield "## What the safe range costs"
    yield ""
    yield (
        "| network | method | full precision | full range | safe range | agreement, full | "
        "agreement, safe | images |"
    )
    yield "|---|---|--:|--:|--:|--:|--:|--:|"
    pairs: dict[tuple[str, str], dict[str, Run]] = {}
    for run in accuracy:
        pairs.setdefault((run["network"], run["method"]), {})[run["weights_range"]] = run
    for (network, method), pair in pairs.items():
        if len(pair) == 2:
            full, safe = pair["full"], pair["safe"]
            yield (
                f"| {network} | {method} | {full['float32_top1']:.2f} | {full['top1']:.2f} | "
                f"{safe['top1']:.2f} | {full['agreement']:.2f} | {safe['agreement']:.2f} | "
                f"{full['images']} |"
            )
    yield ""
    yield (
        "Top-1 in percent of W8A8 students in PyTorch, without training, and in how many percent "
        "of the images they agree with the network in full precision. All layers have 8 bits, "
        "placement layer-input. Of 300 images, one is 0.33 points."
    )


def _checks(checks: Sequence[Run]) -> Iterable[str]:
    yield "## The project on a processor with AVX2 alone"
    for check in checks:
        yield ""
        ended = "ends without an error" if check["passed"] else "fails"
        yield (
            f"`make {check['target']}` {ended} after {check['seconds'] / 60:.1f} minutes, "
            f"{check['cpu_seconds'] / 60:.1f} minutes of processor time on "
            f"{check['hardware']['cpus']} cores; other work (load {check['load_before']:.1f}) "
            "ran on the machine. Its last lines:"
        )
        yield ""
        yield "```text"
        yield from check["said"]
        yield "```"
    yield ""
    yield "As AVX2 alone above: `python benchmarks/processors.py --only checks`."
