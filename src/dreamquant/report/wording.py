"""The protocol in plain words, classes by name, and the command that repeats a run."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dreamquant.results.floats import in_float
from dreamquant.results.manifest import names_network, read_input
from dreamquant.results.steps import steps_taken

_PLACEMENTS = {
    "relu-output": "Activations are rounded at the output of a ReLU or another activation "
    "function, as in the papers of this field. The input image and sums before their ReLU stay in "
    "float, so integer-only hardware would give slightly worse answers.",
    "layer-input": "Activations are rounded at the input of every layer, the input image "
    "included, as integer hardware does.",
    "operands": "Activations are rounded at the input of every layer and every matrix product, "
    "including outputs of softmax and inputs of GELU.",
}
_SITES = {
    "input": "input of {}",
    "relu": "ReLU after {}",
    "stored": "element-wise or concat input after {}",
    "operand": "matrix product's operand after {}",
}


def size(count: float) -> str:
    """Bytes in the unit that suits them."""
    for unit in ("bytes", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def sentence(text: str) -> str:
    """A remark as a sentence: a capital at its start, a full stop at its end."""
    return f"{text[:1].upper()}{text[1:]}."


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
    return _SITES[site["kind"]].format(layer)


def protocol(manifest: Mapping[str, Any]) -> dict[str, str]:
    """All that has to be equal for two results to be compared, a sentence or two each."""
    fields, data = manifest["protocol"], manifest["request"].get("data")
    images = f"{manifest['agreement']['on']}{f' ({Path(data).name})' if data else ''}"
    original = manifest.get("teacher", manifest["network"])
    return {
        **(_rounding(manifest) if manifest["scheme"] else {"Bits": "Float32 throughout."}),
        "Batch norm": f"{fields['batch_norm'].capitalize()}.",
        "How": _how(manifest),
        "Measured on": f"{images}, which were not used to make the result. The result is that of "
        "the last step: nothing was selected by these images.",
        "Task": _task(manifest),
        "Original": f"{Path(original['name']).name}; its weights' SHA-256 begins with "
        f"{fields['teacher_sha256'][:12]}.",
    }


def _task(manifest: Mapping[str, Any]) -> str:
    spec = read_input(manifest, Path())
    outputs = f"; outputs {', '.join(spec.outputs)}" if len(spec.outputs) > 1 else ""
    means = manifest["agreement"].get("means")  # a classifier's record has none
    told = [f"{spec.task}{outputs}", *([f"agreement is {means}"] if means else [])]
    told += manifest["network"].get("notes", ())
    return " ".join(sentence(text) for text in told)


def _how(manifest: Mapping[str, Any]) -> str:
    method, fields = manifest["method"], manifest["protocol"]
    parts = fields["accumulate"]
    return (
        f"Method {method['name']}, preset {method['preset']}: {steps_taken(manifest)}. "
        f"{_images(fields)} Seed {fields['seed']}"
        + (f", each batch in {parts} micro-batches." if parts > 1 else ".")
    )


def _images(fields: Mapping[str, Any]) -> str:
    replaced = fields.get("images", "")
    if replaced.startswith("given"):
        return f"Images: {replaced}, without labels; none was synthesized."
    own = "" if not replaced else f"Images: {replaced}. "
    return f"{own}Not one real image was used."


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
    if "." in weights:
        return (
            f"Weights have {weights} bits on average, chosen layer by layer; activations have "
            f"{activations} bits ({2 ** int(activations)} levels).{_joins(fields)}"
        )
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
        f" Element-wise and concat inputs have {fields['joins']} bits, the image "
        f"{fields['image']}; biases are whole, in units of input scale times weight scale."
    )


def _left_in_float(coverage: Mapping[str, Any]) -> str:
    left = in_float(coverage)
    return f" In float: {left}." if left else ""


def command(manifest: Mapping[str, Any]) -> str:
    """What repeats a run: a shell command, or a Python call where something was given in memory."""
    request, network = manifest["request"], manifest["network"]
    teacher = manifest.get("teacher", network)
    if not names_network(teacher["name"]) or request["method"] is None:
        return _python_call(manifest, teacher)
    own = [("--student", network["name"])] if request["command"] == "distill" else []
    return _shell(teacher, own, manifest)


def _again(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The request, with the length that the run had in place of a budget."""
    request = {
        name: value
        for name, value in manifest["request"].items()
        if name not in ("command", "budget", "iterations")
    }
    length = manifest["method"]["iterations"]
    return {**request, **({"iterations": length} if length else {}), "out": "out/again"}


def _shell(
    network: Mapping[str, Any], own: list[tuple[str, str]], manifest: Mapping[str, Any]
) -> str:
    given = [text for name, value in _again(manifest).items() for text in _as_option(name, value)]
    named = [f"{name} {shlex.quote(value)}" for name, value in [*_network_options(network), *own]]
    flags = [f"--{name}" for name in _SAID if network["input"].get(name)]
    lines = [shlex.quote(network["name"]), *named, *flags, *given]
    return f"dreamquant {manifest['request']['command']} " + " \\\n    ".join(lines)


_SAID = ("features", "bgr")  # of an input, where it is so


def _as_option(name: str, value: Any) -> list[str]:
    option = f"--{name.replace('_', '-')}"
    if value is True:
        return [option]
    values = value if isinstance(value, list) else [value]
    return [f"{option} {shlex.quote(str(each))}" for each in values]


def _network_options(network: Mapping[str, Any]) -> list[tuple[str, str]]:
    weights = network["weights"]
    return [
        *([("--weights", weights)] if weights else []),
        *(_input_options(network["input"]) if "options" in network["input_source"] else []),
        *_task_options(network["input"]),
    ]


def _task_options(spec: Mapping[str, Any]) -> list[tuple[str, str]]:
    task = spec.get("task", "classification")  # the default was not always on record
    return [] if task == "classification" else [("--task", task)]


def _input_options(spec: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        ("--input", "x".join(str(size) for size in spec["shape"])),
        ("--mean", ",".join(str(value) for value in spec["mean"])),
        ("--std", ",".join(str(value) for value in spec["std"])),
    ]


def _python_call(manifest: Mapping[str, Any], teacher: Mapping[str, Any]) -> str:
    again, command = _again(manifest), manifest["request"]["command"]
    method, name = again.pop("method"), manifest["method"]["name"]
    quantized = command == "quantize"
    call = [
        f"network,  # the same {teacher['name']} as then",
        f"{again.pop('bits')!r}," if quantized else f"{manifest['network']['name']!r},",
        f"{method!r}," if method else f"method,  # the same {name} as then",
        *([f"input={_input(teacher['input'])},"] if quantized else []),
        *(f"{option}={value!r}," for option, value in again.items()),
    ]
    body = "\n".join(f"    {line}" for line in call)
    names = "InputSpec, quantize" if quantized else command
    return f"from dreamquant import {names}\n\n{command}(\n{body}\n)"


def _input(spec: Mapping[str, Any]) -> str:
    shape = {each: tuple(spec[each]) for each in ("shape", "mean", "std")}
    task = {name.removeprefix("--"): value for name, value in _task_options(spec)}
    said = {name: True for name in _SAID if spec.get(name)}
    return f"InputSpec(**{shape | task | said}, num_classes={spec['num_classes']})"


def files(manifest: Mapping[str, Any], folder: Path) -> dict[str, str]:
    """Each file of the result with its size and checksum, as far as the manifest lists them."""
    return {
        name: f"{size(entry['bytes'])}, SHA-256 {entry['sha256']}{_computed_in_float(entry)}"
        for name, entry in manifest.get("files", {}).items()
    } | {"folder": str(folder)}


def _computed_in_float(file: Mapping[str, Any]) -> str:
    """What an exported file computes in float, each with its reason."""
    reasons = file.get("in_float")
    return f"; in float: {'; '.join(reasons)}" if reasons else ""
