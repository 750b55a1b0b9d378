"""Transformers of real size with random weights: is every product quantized, and exported?

    python benchmarks/transformer_structure.py [NAMES of timm ...] [--bits w8a8]

Prints for each network what stays in float, the kernels that ONNX Runtime runs, and seconds and
MiB of one step of synthesis for the images of PSAQ-ViT and MimiQ, in batches of 4.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import timm
import torch
from torch import Tensor

from dreamquant import InputSpec
from dreamquant.export.onnx_file import onnx_file
from dreamquant.methods import METHODS
from dreamquant.networks.attention import split_attention
from dreamquant.quantization.convert import quantize_network
from dreamquant.quantization.scheme import Bits, Scheme
from dreamquant.terms.contract import weighted
from dreamquant.training.batch import Batch
from dreamquant.training.rng import Rng
from dreamquant.training.step import Players, Step
from dreamquant.training.watched import Watched

NAMES = ("deit_tiny_patch16_224", "vit_small_patch16_224", "swin_tiny_patch4_window7_224")
SPEC = InputSpec((3, 224, 224), (0.5,) * 3, (0.5,) * 3, 1000)
BATCH, STEPS = 4, 2
_MANIFEST: dict[str, Any] = {
    "coverage": {"layers": []},
    "method": {"name": "none"},
    "protocol": {"seed": 0},
}


def main() -> None:
    """Look at each network."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=NAMES)
    parser.add_argument("--bits", default="w8a8")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.names:
        torch.manual_seed(0)
        network = split_attention(timm.create_model(name)).eval().requires_grad_(False)
        print(name)
        for method in ("psaq_vit", "mimiq"):
            print(f"  {method}: {_synthesis(network, method)}", flush=True)
        print(f"  export: {_exported(network, options.bits)}", flush=True)


def _synthesis(network: torch.nn.Module, method: str) -> str:
    source = METHODS[method].images
    assert source is not None
    watched = Watched(network, torch.zeros(2, *SPEC.shape), source.teacher_taps)
    images = torch.randn(BATCH, *SPEC.shape, requires_grad=True)
    batch = Batch(images, torch.arange(BATCH), torch.arange(BATCH))
    start = time.process_time()
    for _ in range(STEPS):
        step = Step(
            batch, Players(watched, watched), Rng.seeded(0, images.device), student_learns=False
        )
        losses = [
            each.weight * each.term(step.seen_by(each.term)) for each in weighted(source.terms)
        ]
        torch.autograd.grad(_total(losses), [images])
    seconds = (time.process_time() - start) / STEPS
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return f"{seconds:.2f} CPU s a step of {BATCH} images, at most {most:.0f} MiB in all"


def _total(losses: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(losses)).sum()


def _exported(network: torch.nn.Module, bits: str) -> str:
    images = torch.randn(2, *SPEC.shape)
    student, _ = quantize_network(network, Scheme(Bits.parse(bits), "operands"), images)
    student.observe(True)
    with torch.no_grad():
        student(images)
    student.fix()
    calls = student.sites.bits["operands"]
    start = time.process_time()
    found = onnx_file(student, _MANIFEST, SPEC, "int8box", layout=None, two_bit=False)
    seconds = time.process_time() - start
    verified = replace(found.verification, warnings=())
    return (
        f"{len(calls)} operands beside {len(student.quantized_layers())} layers; products "
        f"{verified.integer_products} on integers, {verified.float_products} in float; "
        f"convolutions {verified.integer_convolutions} and {verified.float_convolutions}; "
        f"{verified.layers} "
        f"quantizers verified, at most {verified.flipped:.3%} of codes differ; in float: "
        f"{'; '.join(found.in_float) or 'nothing'}; {seconds:.0f} CPU s"
    )


if __name__ == "__main__":
    main()
