"""The protocol in plain words, classes by name, and the command that repeats a run."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_PLACEMENTS = {
    "relu-output": "Activations are rounded where they leave a ReLU, as the papers of this field "
    "measure. The input image and sums before their ReLU stay in float, so integer-only hardware "
    "would do a little worse.",
    "layer-input": "Activations are rounded where they enter every layer, the input image "
    "included, as integer hardware does.",
}
_PRECISIONS = {"32": "float32", "bf16": "bfloat16"}


def size(count: float) -> str:
    """Bytes in the unit that suits them."""
    for unit in ("bytes", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def signed(value: float) -> str:
    """A change, with a minus sign rather than a hyphen."""
    digits = f"{abs(value)}" if isinstance(value, int) else f"{abs(value):.2f}"
    return f"{'−' if value < 0 else '+'}{digits}"


def duration(seconds: float) -> str:
    """Seconds in the units that suit them."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.1f} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def class_name(manifest: Mapping[str, Any], label: int) -> str:
    """The name of a class, the first of ImageNet's synonyms, or "class 3" where it has none."""
    names = manifest["network"]["input"]["class_names"]
    name = str(names[label]).split(",")[0] if names else str(label)
    # A bare number would be taken for a figure.
    return f"class {name}" if name.isdecimal() else name


def site_name(site: Mapping[str, Any]) -> str:
    """Where a quantizer sits, in words."""
    layer = site["layer"] or "the input"
    # A name that begins with a number, as in nn.Sequential, would be taken for a figure.
    layer = f"layer {layer}" if layer[0].isdecimal() else layer
    if site["kind"] == "weight":
        return f"weights of {layer}"
    return f"input of {layer}" if site["kind"] == "input" else f"ReLU after {layer}"


def protocol(manifest: Mapping[str, Any]) -> dict[str, str]:
    """All that has to be equal for two results to be compared, a sentence or two each."""
    fields, schedule = manifest["protocol"], manifest["method"]["schedule"]
    method, data = manifest["method"], manifest.get("request", {}).get("data")
    images = f"{manifest['agreement']['on']}{f' ({Path(data).name})' if data else ''}"
    original = manifest.get("teacher", manifest["network"])
    return {
        **(_rounding(manifest) if manifest["scheme"] else {"Bits": "Float32 throughout."}),
        "Batch norm": f"{fields['batch_norm'].capitalize()}.",
        "Learned from": f"{schedule['iterations']} batches of {schedule['batch']} synthetic "
        f"images by method {method['name']}, preset {method['preset']}; not one real image. "
        f"For the first {schedule['student_warmup']} batches only the generator learns. "
        f"Trained in {_PRECISIONS[fields['training_precision']]}, seed {fields['seed']}"
        + (f", each batch in {parts} parts." if (parts := _parts(fields)) > 1 else "."),
        "Measured on": f"{images}, which took no part in training. "
        "The last iteration is the result: no other was looked at to choose it.",
        "Original": f"{Path(original['name']).name}; its weights' SHA-256 begins with "
        f"{fields['teacher_sha256'][:12]}.",
    }


def _rounding(manifest: Mapping[str, Any]) -> dict[str, str]:
    fields = manifest["protocol"]
    return {
        "Bits": _bits(fields),
        "Where": _PLACEMENTS[fields["placement"]] + _left_in_float(manifest["coverage"]),
        "Weights": f"{fields['weights'].capitalize()}.",
        "Activations": f"{fields['activations'].capitalize()}. "
        f"Gradient through the rounding: {fields['gradient']}.",
    }


def _bits(fields: Mapping[str, Any]) -> str:
    weights, activations = fields["bits"].removeprefix("w").split("a")
    others = "".join(f" Layers {name} have {bits}." for name, bits in fields["overrides"].items())
    ends = fields["first_last_bits"]
    exception = "" if ends == fields["bits"] else f" The first and the last layer have {ends} bits."
    return (
        f"Weights have {weights} bits ({2 ** int(weights)} levels), activations {activations} bits "
        f"({2 ** int(activations)} levels).{exception}{others}{_joins(fields)}"
    )


def _joins(fields: Mapping[str, Any]) -> str:
    if "joins" not in fields:
        return ""
    return (
        f" What sums, concatenations and poolings read has {fields['joins']} bits, the image "
        f"{fields['image']}; biases are whole, in units of input scale times weight scale."
    )


def _left_in_float(coverage: Mapping[str, Any]) -> str:
    left = Counter(coverage["left_in_float"])
    if not left:
        return ""
    return " Left in float: " + "; ".join(f"{n} × {part}" for part, n in left.items()) + "."


def command(manifest: Mapping[str, Any]) -> str:
    """The shell command that repeats a run, or the Python call for a module given in memory."""
    request = manifest.get("request", {"method": manifest["method"]["name"]})
    if manifest["scheme"] is None:
        return _shell("distill", manifest["teacher"], _distilling(manifest), manifest)
    if ":" not in manifest["network"]["name"] or request["method"] is None:
        return _python_call(manifest)
    return _shell("quantize", manifest["network"], _quantizing(manifest), manifest)


def _shell(
    verb: str,
    network: Mapping[str, Any],
    own: list[tuple[str, str]],
    manifest: Mapping[str, Any],
) -> str:
    options = [*_network_options(network), *own, *_common_options(manifest)]
    parts = [shlex.quote(network["name"])]
    parts += [f"{name} {shlex.quote(value)}" for name, value in options]
    parts += _flags(manifest)
    return f"dreamquant {verb} " + " \\\n    ".join(parts)


def _distilling(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [("--student", manifest["network"]["name"])]


def _parts(fields: Mapping[str, Any]) -> int:
    parts: int = fields.get("accumulate", 1)  # results of before there was a choice
    return parts


def _quantizing(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    scheme, fields = manifest["scheme"], manifest["protocol"]
    return [
        ("--bits", fields["bits"]),
        ("--placement", fields["placement"]),
        *_scheme_options(scheme),
        *(("--override", f"{name}={bits}") for name, bits in fields["overrides"].items()),
        ("--ranges", scheme["ranges"]),
        ("--gradient", scheme["gradient"]),
        ("--norms", _norms(scheme)),
        ("--preset", manifest["method"]["preset"]),
    ]


def _norms(scheme: Mapping[str, Any]) -> str:
    norms: str = scheme.get("norms", "kept")  # results of before there was a choice
    return norms


def _network_options(network: Mapping[str, Any]) -> list[tuple[str, str]]:
    weights = network["weights"]
    return [
        *([("--weights", weights)] if weights else []),
        *(_input_options(network["input"]) if "options" in network["input_source"] else []),
    ]


def _common_options(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    request, fields = manifest.get("request", {}), manifest["protocol"]
    data = request.get("data")
    return [
        ("--method", request.get("method") or manifest["method"]["name"]),
        ("--iterations", str(manifest["timings"]["iterations"])),
        ("--seed", str(fields["seed"])),
        ("--precision", fields["training_precision"]),
        *([("--accumulate", str(parts))] if (parts := _parts(fields)) > 1 else []),
        *([("--data", data)] if data else []),
        ("--out", "out/again"),
    ]


def _flags(manifest: Mapping[str, Any]) -> list[str]:
    inherits = manifest.get("request", {}).get("inherit", False)
    return [*(["--inherit"] if inherits else []), *(["--compile"] if _compiled(manifest) else [])]


def _compiled(manifest: Mapping[str, Any]) -> bool:
    compiled: bool = manifest.get("configuration", {}).get("compiled", False)
    return compiled


def _input_options(spec: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        ("--input", "x".join(str(size) for size in spec["shape"])),
        ("--mean", ",".join(str(value) for value in spec["mean"])),
        ("--std", ",".join(str(value) for value in spec["std"])),
    ]


def _scheme_options(scheme: Mapping[str, Any]) -> list[tuple[str, str]]:
    given = {"--first-last": scheme["first_last_bits"], "--joins": scheme.get("joins")}
    return [(option, str(bits)) for option, bits in given.items() if bits is not None]


def _python_call(manifest: Mapping[str, Any]) -> str:
    spec, scheme, fields = manifest["network"]["input"], manifest["scheme"], manifest["protocol"]
    request = manifest.get("request", {})
    given = {
        "placement": fields["placement"],
        "first_last": scheme["first_last_bits"],
        "overrides": tuple(fields["overrides"].items()),
        "joins": scheme.get("joins"),
        "preset": manifest["method"]["preset"],
        "ranges": scheme["ranges"],
        "gradient": scheme["gradient"],
        "norms": _norms(scheme),
        "iterations": manifest["timings"]["iterations"],
        "seed": fields["seed"],
        "precision": fields["training_precision"],
        "compiled": _compiled(manifest),
        "accumulate": _parts(fields),
        "data": request.get("data"),
        "out": "out/again",
    }
    shape = {name: tuple(spec[name]) for name in ("shape", "mean", "std")}
    method, name = request.get("method", manifest["method"]["name"]), manifest["method"]["name"]
    call = [
        f"network,  # the same {manifest['network']['name']} as then",
        f"{fields['bits']!r},",
        f"{method!r}," if method else f"method,  # the same {name} as then",
        f"input=InputSpec(**{shape}, num_classes={spec['num_classes']}),",
        *(f"{name}={value!r}," for name, value in given.items()),
    ]
    body = "\n".join(f"    {line}" for line in call)
    return f"from dreamquant import InputSpec, quantize\n\nquantize(\n{body}\n)"


def files(manifest: Mapping[str, Any], folder: Path) -> dict[str, str]:
    """Each file of the result with its size and checksum, as far as the manifest lists them."""
    return {
        name: f"{size(entry['bytes'])}, SHA-256 {entry['sha256']}"
        for name, entry in manifest.get("files", {}).items()
    } | {"folder": str(folder)}
