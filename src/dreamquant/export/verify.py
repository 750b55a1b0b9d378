"""An exported file against the student it came from: every layer, and the whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dreamquant.errors import ExportError
from dreamquant.export.metadata import IMAGES, LOGITS, Layout
from dreamquant.export.parts import is_there
from dreamquant.export.runtime import (
    RUNTIMES,
    Array,
    OpenVinoSession,
    OrtSession,
    as_pixels,
    convolutions,
)
from dreamquant.networks.pixels import normalise
from dreamquant.networks.spec import InputSpec
from dreamquant.networks.zoo import one_line
from dreamquant.quantization.layers import ActivationQuantizer, Student

_FLIPPED = 0.001  # the largest share of a layer's codes that may differ, each by one
_FEW = 2  # so many may differ anyway: a layer of a few hundred codes knows no such small share
_AGREEMENT = 0.995
_CONFIDENT = 4.0  # margins above so many typical deviations make an input confident
_FEWEST = 8  # confident inputs, below which agreement on them says little
_SCALES = (1.0, 4.0)
_PIXELS = 2**19  # images to compare on, counted in pixels, so that memory stays small
_MOST_IMAGES = 32
_FORCED = "forced/"


@dataclass(frozen=True)
class Verification:
    """What was compared, and how it came out.

    Attributes:
        images: on which.
        layers: calls of activation quantizers compared, each fed with the student's own codes.
        flipped: the largest share of codes of one of them that differ, each by one.
        confident: images whose top-1 is compared end to end.
        agreement: of top-1 on these, by runtime; ``None`` where there are none.
        warning: what the comparison could not show, or nothing.
        integer_convolutions: in the graph that ONNX Runtime runs.
        float_convolutions: likewise.
    """

    images: int
    layers: int
    flipped: float
    confident: int
    agreement: dict[str, float | None]
    warning: str
    integer_convolutions: int
    float_convolutions: int


def verify(
    model: onnx.ModelProto,
    codes: Mapping[int, str],
    student: Student,
    shape: tuple[int, int, int],
    runtimes: Sequence[str],
) -> Verification:
    """Compare an exported network with its student.

    The images are noise of two spatial scales, as they are and four times larger. Layer by layer
    the network gets the student's codes and may differ from it in 0.1 % of the codes, by one. As a
    whole, its logits may deviate as the student's own do when so many of its codes flip; where
    the student's decision stands well above that, the top class must be the same.

    Args:
        model: without preprocessing.
        codes: see :class:`dreamquant.export.encode.Encoded`.
        student: it was made from.
        shape: channels, height, width of an image.
        runtimes: to compare in; all but ONNX Runtime may be missing.

    Raises:
        ExportError: the file is malformed, a runtime does not load it, or it computes something
            else.
    """
    data = model.SerializeToString()
    _require_well_formed(model)
    images = noise(shape)
    recorded, logits = record(student, images)
    threads = torch.get_num_threads()
    forced = _session("onnxruntime", forced_network(model, codes), threads)
    flipped = _compare_layers(forced, codes, images, recorded, logits, student)
    sensitivity = _sensitivity(student, images, logits)
    confident = _margins(logits) > _CONFIDENT * sensitivity
    agreement = {}
    for runtime in [name for name in runtimes if is_there(name)]:
        session = _session(runtime, data, threads)
        found = torch.from_numpy(session.run({IMAGES: images.numpy()}, [LOGITS])[0])
        agreement[runtime] = _compare_logits(found, logits, confident, sensitivity, runtime)
    integer, in_float = convolutions(data, threads=threads)
    return Verification(
        images=len(images),
        layers=len(codes),
        flipped=flipped,
        confident=int(confident.sum()),
        agreement=agreement,
        warning=_warning(int(confident.sum()), len(images)),
        integer_convolutions=integer,
        float_convolutions=in_float,
    )


def verify_preprocessing(
    model: onnx.ModelProto, plain: onnx.ModelProto, spec: InputSpec, layout: Layout
) -> None:
    """Compare a network that takes uint8 images with the same one that takes normalised ones.

    Raises:
        ExportError: the file is malformed, ONNX Runtime does not load it, or it computes
            something else.
    """
    _require_well_formed(model)
    channels, height, width = spec.shape
    generator = torch.Generator().manual_seed(2)
    pixels = torch.randint(0, 256, (4, channels, height, width), generator=generator)
    images = normalise(pixels, spec)
    threads = torch.get_num_threads()
    with_pixels, normalised = (
        _session("onnxruntime", proto.SerializeToString(), threads).run({IMAGES: feed}, [LOGITS])[0]
        for proto, feed in ((model, as_pixels(images, spec, layout)), (plain, images.numpy()))
    )
    if not np.array_equal(with_pixels, normalised):
        raise not_the_student("with preprocessing its logits differ")


def noise(shape: tuple[int, int, int]) -> Tensor:
    """Normalised images (N, C, H, W): patches and grain, then the same four times larger."""
    channels, height, width = shape
    count = max(4, min(_MOST_IMAGES, _PIXELS // (height * width)))
    generator = torch.Generator().manual_seed(0)
    patches = torch.randn(count, channels, -(-height // 4), -(-width // 4), generator=generator)
    grain = torch.randn(count, *shape, generator=generator)
    images = F.interpolate(patches, (height, width), mode="bilinear") * 1.5 + grain * 0.5
    return torch.cat([images * scale for scale in _SCALES])


@torch.no_grad()
def record(student: Student, images: Tensor) -> tuple[list[Array], Tensor]:
    """Codes (uint8) at each call of an activation quantizer in the order executed, and logits."""
    codes: list[Array] = []

    def keep(quantizer: nn.Module, inputs: tuple[Tensor, ...], _: Tensor) -> None:
        found = cast(ActivationQuantizer, quantizer).codes(inputs[0])
        codes.append(found.to(torch.uint8).numpy())

    with _hooked(student, keep):
        logits = student(images)
    return codes, logits


@contextmanager
def _hooked(student: Student, hook: Any) -> Iterator[None]:
    quantizers = student.activation_quantizers().values()
    handles = [quantizer.register_forward_hook(hook) for quantizer in quantizers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def forced_network(model: onnx.ModelProto, codes: Mapping[int, str]) -> bytes:
    """The network cut at its activation quantizers.

    Each layer reads codes from an input of the network, ``forced/NAME``, and its own codes are an
    output, so that one run compares all layers, in the very kernels that a runtime fuses.
    """
    cut = onnx.ModelProto()
    cut.CopyFrom(model)
    names = set(codes.values())
    for node in cut.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in names:
            node.input[0] = _FORCED + node.input[0]
    for info in [info for info in cut.graph.value_info if info.name in names]:
        cut.graph.output.add().CopyFrom(info)
        entry = cut.graph.input.add()
        entry.CopyFrom(info)
        entry.name = _FORCED + info.name
    return cut.SerializeToString()  # type: ignore[no-any-return]


def _require_well_formed(model: onnx.ModelProto) -> None:
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # the checker raises types of its own
        raise not_the_student(f"the ONNX checker refuses it: {one_line(error)}") from error


def _session(runtime: str, data: bytes, threads: int) -> OrtSession | OpenVinoSession:
    try:
        return RUNTIMES[runtime](data, threads=threads)
    except Exception as error:  # runtimes raise types of their own
        raise not_the_student(f"{runtime} does not load it: {one_line(error)}") from error


def _compare_layers(
    session: OrtSession | OpenVinoSession,
    codes: Mapping[int, str],
    images: Tensor,
    recorded: Sequence[Array],
    logits: Tensor,
    student: Student,
) -> float:
    names = list(dict.fromkeys(codes.values()))
    feed = {_FORCED + codes[call]: recorded[call] for call in codes}
    *found, last = session.run({IMAGES: images.numpy(), **feed}, [*names, LOGITS])
    by_name = dict(zip(names, found, strict=True))
    worst = 0.0
    for call, name in codes.items():
        worst = max(worst, _compare_codes(by_name[name], recorded[call], name))
    deviation = float((torch.from_numpy(last) - logits).abs().max())
    if deviation > _FLIPPED * float(logits.abs().max()):
        raise not_the_student(
            f"logits deviate by {deviation:.3g} though the last layer's input is equal"
        )
    return worst


def _compare_codes(found: Array, wanted: Array, name: str) -> float:
    difference = np.abs(found.astype(np.int16) - wanted)
    flips = int(np.count_nonzero(difference))
    if difference.max(initial=0) > 1 or flips > _FLIPPED * difference.size + _FEW:
        raise not_the_student(
            f"{flips} of {difference.size} codes differ, by up to {difference.max()}, at {name}"
        )
    return flips / difference.size


def _sensitivity(student: Student, images: Tensor, logits: Tensor) -> float:
    """How far logits typically move when each layer flips the share of codes that it may."""
    generator = torch.Generator().manual_seed(1)

    def flip(quantizer: nn.Module, _: Any, result: Tensor) -> Tensor:
        chance = torch.rand(result.shape, generator=generator)
        steps = (chance < _FLIPPED / 2).float() - (chance > 1 - _FLIPPED / 2).float()
        # Not with `+`, which the student would take for a sum of its own.
        return torch.addcmul(result, steps, cast(ActivationQuantizer, quantizer).scale)

    with torch.no_grad(), _hooked(student, flip):
        moved = student(images)
    return float((moved - logits).abs().amax(1).median())


def _margins(logits: Tensor) -> Tensor:
    best = logits.topk(2, dim=1).values
    return best[:, 0] - best[:, 1]


def _compare_logits(
    found: Tensor, wanted: Tensor, confident: Tensor, sensitivity: float, runtime: str
) -> float | None:
    deviation = float((found - wanted).abs().amax(1).median())
    rounding = 1e-4 * float(wanted.abs().max())
    if not deviation <= 2 * sensitivity + rounding:
        raise not_the_student(
            f"in {runtime} logits deviate by {deviation:.3g}, where flipped codes move the "
            f"student's own by {sensitivity:.3g}"
        )
    if not confident.any():
        return None
    same = found.argmax(1) == wanted.argmax(1)
    agreement = float(same[confident].float().mean())
    if agreement < _AGREEMENT:
        raise not_the_student(
            f"in {runtime} top-1 agrees on only {agreement:.1%} of confident inputs"
        )
    return agreement


def _warning(confident: int, images: int) -> str:
    if confident >= _FEWEST:
        return ""
    return (
        f"only {confident} of {images} synthetic inputs are confident, so that equal top-1 on them "
        "says little: evaluate the file on images; each layer was compared on all of them"
    )


def not_the_student(what: str) -> ExportError:
    """The error of a file that failed its verification."""
    return ExportError(
        f"the exported network is not the student: {what}",
        where="verification",
        remedy="nothing was written; please report this with the network",
    )
