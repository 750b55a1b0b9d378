"""Compares an exported file with its student, layer by layer and as a whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from torch import Tensor

from dreamquant import machine
from dreamquant.errors import ExportError
from dreamquant.export.compare import (
    NotTheStudentError,
    Outputs,
    Recorded,
    compare_codes,
    compare_outputs,
    margins,
    record,
    require_equal_outputs,
    sensitivity_of,
    smallest,
)
from dreamquant.export.evidence import evidence
from dreamquant.export.metadata import IMAGES, Layout
from dreamquant.export.noise import noise
from dreamquant.export.parts import is_there
from dreamquant.export.runtime import (
    EXACT,
    RUNTIMES,
    Array,
    Kernels,
    OrtSession,
    Session,
    as_taken,
    kernels,
)
from dreamquant.export.saturation import layers_that_may_saturate, saturated, saturates
from dreamquant.networks.pixels import normalise
from dreamquant.networks.spec import InputSpec
from dreamquant.networks.zoo import one_line
from dreamquant.quantization.student import Student

_CONFIDENT = 4.0  # an input is confident if its margin exceeds this number of typical deviations
_FEWEST = 8  # with fewer confident inputs, agreement on them says little
_FORCED = "forced/"


@dataclass(frozen=True)
class Verification:
    """The results of the comparison of a file with its student.

    Attributes:
        images: number of images.
        layers: number of compared calls of activation quantizers; each gets the student's codes.
        flipped: largest fraction of differing codes of one call; they differ by one.
        confident: number of images whose top-1 is compared; ``None`` if outputs are not logits.
        agreement: top-1 agreement on these images, for each correct runtime; ``None`` if no
            input is confident.
        exact_on: instruction sets of x86 on which no sum of integers saturates, by calculation.
        saturating: layers that may saturate on others, each with the fraction of its sums that
            saturate on these images, by emulation.
        warnings: limits of the comparison, and problems of single runtimes.
        integer_convolutions: number in the graph of ONNX Runtime; ``None`` if it does not run it.
        float_convolutions: number in that graph.
        integer_products: number of matrix products on integers in that graph.
        float_products: number of matrix products in float in that graph.
    """

    images: int
    layers: int
    flipped: float
    confident: int | None
    agreement: dict[str, float | None]
    exact_on: tuple[str, ...]
    saturating: dict[str, float]
    warnings: tuple[str, ...]
    integer_convolutions: int | None
    float_convolutions: int | None
    integer_products: int | None
    float_products: int | None


def verify(
    model: onnx.ModelProto,
    codes: Mapping[int, str],
    student: Student,
    spec: InputSpec,
    runtimes: Sequence[str],
) -> Verification:
    """Compare an exported network with its student.

    The images are noise of two spatial scales, with two amplitudes. Each layer of the network
    gets the student's codes. Its own codes may differ by one, in 0.2 % of the codes and where a
    value lies between two codes. The logits of the whole network may deviate as much as the
    student's logits do when 0.1 % of its codes flip. If the margin of an input is well
    above that, top-1 must be equal. The first runtime that loads the file decides; problems of
    other runtimes are warnings. If kernels of this processor saturate, ONNX Runtime uses exact
    ones.

    Args:
        model: the file without preprocessing.
        codes: see :class:`dreamquant.export.encode.Encoded`.
        student: the student that it was made from.
        spec: its input and outputs.
        runtimes: runtimes for the comparison; all but ONNX Runtime may be missing.

    Raises:
        ExportError: the file is malformed, no runtime loads it, or its results differ.
    """
    data = model.SerializeToString()
    _require_well_formed(model)
    images = noise(spec)
    recorded = record(student, images)
    exact = bool(layers_that_may_saturate(model)) and saturates("onnxruntime")
    sessions, warnings = _sessions(data, [name for name in runtimes if is_there(name)], exact)
    first = next(iter(sessions))
    forced = _session(first, forced_network(model, codes), exact)
    wanted = _wanted(student, images, recorded.outputs, spec)
    flipped = _compare_layers(forced, model, codes, images, recorded, wanted)
    agreement = {}
    for runtime, session in sessions.items():
        try:
            found = _as_tensors(session.run({IMAGES: images.numpy()}, spec.outputs))
            agreement[runtime] = compare_outputs(found, wanted, runtime)
        except Exception as error:  # runtimes raise their own types
            if runtime == first:
                raise
            warnings.append(_does_otherwise(runtime, error))
    cut_off = saturated(model, images.numpy(), lambda shown: _session(first, shown, exact))
    found_kernels = (
        kernels(data, threads=torch.get_num_threads())._asdict()
        if "onnxruntime" in sessions
        else dict.fromkeys(Kernels._fields)
    )
    confident = None if wanted.confident is None else int(wanted.confident.sum())
    return Verification(
        images=len(images),
        layers=len(codes),
        flipped=flipped,
        confident=confident,
        agreement=agreement,
        exact_on=("VNNI",) if cut_off else ("AVX2", "AVX-512", "VNNI"),
        saturating=cut_off,
        warnings=(*warnings, *_few(confident, len(images)), *_exactly(exact)),
        **found_kernels,
    )


def verify_form(
    model: onnx.ModelProto, plain: onnx.ModelProto, spec: InputSpec, layout: Layout | None
) -> None:
    """Compare a network that takes pixels or channels last with the verified network.

    Args:
        model: the network.
        plain: the verified network, which takes normalised images, channels first.
        layout: layout of the uint8 images that ``model`` takes; ``None`` for normalised numbers,
            channels last.

    Raises:
        ExportError: the file is malformed, does not load, or its results differ.
    """
    _require_well_formed(model)
    generator = torch.Generator().manual_seed(2)
    pixels = torch.randint(0, 256, (4, *spec.image), generator=generator)
    images = normalise(pixels, spec)
    otherwise, as_usual = (
        _session("onnxruntime", proto.SerializeToString(), False).run({IMAGES: feed}, spec.outputs)
        for proto, feed in ((model, as_taken(images, spec, layout)), (plain, images.numpy()))
    )
    if not all(map(np.array_equal, otherwise, as_usual)):
        raise NotTheStudentError("with preprocessing its outputs differ")


def _wanted(
    student: Student, images: Tensor, values: tuple[Tensor, ...], spec: InputSpec
) -> Outputs:
    sensitivity = sensitivity_of(student, images, values)
    confident = None
    if spec.task == "classification" and values[0].dim() == 2 and values[0].shape[1] > 1:
        confident = margins(values[0]) > _CONFIDENT * sensitivity[0]
    return Outputs(spec.outputs, values, sensitivity, confident)


def _as_tensors(found: Sequence[Array]) -> list[Tensor]:
    return [torch.from_numpy(each) for each in found]


def forced_network(model: onnx.ModelProto, codes: Mapping[int, str]) -> bytes:
    """The network, split at its activation quantizers.

    Each layer reads codes from an input ``forced/NAME`` of the network, and its own codes are an
    output. So one run compares all layers, with the kernels that the runtime really uses.
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
    except Exception as error:  # the checker raises its own types
        raise NotTheStudentError(f"the ONNX checker refuses it: {one_line(error)}") from error


def _session(runtime: str, data: bytes, exact: bool) -> Session:
    threads = torch.get_num_threads()
    if runtime == "onnxruntime":
        return OrtSession(data, threads=threads, exact=exact)
    return RUNTIMES[runtime](data, threads=threads)


def _sessions(
    data: bytes, runtimes: Sequence[str], exact: bool
) -> tuple[dict[str, Session], list[str]]:
    """The file in each runtime that loads it, and the messages of the others."""
    sessions, lacking = {}, []
    for runtime in runtimes:
        try:
            sessions[runtime] = _session(runtime, data, exact)
        except Exception as error:  # runtimes raise their own types
            lacking.append(f"{runtime} cannot run the file: {one_line(error)}")
    if not sessions:
        raise ExportError(
            "; ".join(lacking),
            where="verification",
            remedy="the file was not written; replace the named operation, or update the runtimes",
        )
    return sessions, lacking


def _does_otherwise(runtime: str, error: Exception) -> str:
    if not isinstance(error, NotTheStudentError):
        return f"{runtime} cannot run the file: {one_line(error)}"
    if saturates(runtime):
        return f"{error.reason}: its kernels saturate on this processor ({machine.described()})"
    return f"{error.reason}: use another runtime, or compare them on images first"


def _compare_layers(
    session: Session,
    model: onnx.ModelProto,
    codes: Mapping[int, str],
    images: Tensor,
    recorded: Recorded,
    wanted: Outputs,
) -> float:
    names = list(dict.fromkeys(codes.values()))
    feed = {_FORCED + codes[call]: recorded.codes[call] for call in codes}
    every = session.run({IMAGES: images.numpy(), **feed}, [*names, *wanted.names])
    found, last = every[: len(names)], _as_tensors(every[len(names) :])
    by_name = dict(zip(names, found, strict=True))
    differences = [
        compare_codes(by_name[name], recorded.codes[call], recorded.tied[call], name)
        for call, name in codes.items()
    ]
    wrong = [difference for difference in differences if not difference.tolerable]
    if wrong:
        least = smallest(wrong)
        more = f", and in {len(wrong) - 1} more quantizers" if len(wrong) > 1 else ""
        given = feed[_FORCED + least.name]
        raise NotTheStudentError(
            f"{least}{more}",
            evidence(model, least.name, set(names), by_name[least.name], given),
        )
    require_equal_outputs(wanted.names, last, wanted.values)
    return max((difference.fraction for difference in differences), default=0.0)


def _few(confident: int | None, images: int) -> tuple[str, ...]:
    if confident is None or confident >= _FEWEST:
        return ()
    return (
        f"only {confident} of {images} noise images are confident, so equal top-1 on them says "
        "little: evaluate the file on real images; each layer was compared on all noise images",
    )


def _exactly(exact: bool) -> tuple[str, ...]:
    if not exact:
        return ()
    return (
        f"kernels of this processor ({machine.described()}) saturate with weights of the full "
        f"range: the file was verified in ONNX Runtime with {EXACT}=1; set it on such processors, "
        "or quantize with --weights-range safe",
    )
