"""Upgrades manifests to the current schema; no other code handles earlier schemas.

In schema 1 a method was two lists of terms and one schedule. In schema 2 it is its images and its
recovery, the request holds every option that was given, and phases are on record. The first
versions of schema 2 lacked some of its fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dreamquant.networks.choices import current_task

SCHEMA = 2


def upgraded(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest in the current schema; a complete manifest of this schema is not changed.

    Raises:
        KeyError: the record is incomplete. TypeError and ValueError have the same meaning.
    """
    if manifest["schema"] == SCHEMA:
        return _completed(manifest)
    schedule = manifest["method"]["schedule"]
    scheme, norms = _scheme(manifest["scheme"])
    protocol = {"accumulate": 1, **manifest["protocol"]}
    return {
        **manifest,
        "schema": SCHEMA,
        "scheme": scheme,
        "protocol": protocol,
        "method": _method(manifest["method"]),
        "request": _request(manifest, scheme, protocol, norms),
        "phases": [
            _phase(phase, manifest)
            for phase in _phases(schedule, manifest["timings"]["training_seconds"])
        ],
        "ranges_set_at": schedule["student_warmup"],
        "history": _history(manifest["history"]),
        "diversity": manifest.get("diversity"),
        "prepared": [],
        "configuration": manifest.get("configuration", {}),
        "files": manifest.get("files", {}),
    }


def _completed(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest of the current schema, with the fields and names of the current version."""
    phases = [_phase(each, manifest) for each in manifest["phases"]]
    found = {
        **manifest,
        "prepared": manifest.get("prepared", []),
        "phases": phases,
    }
    network = manifest.get("network")
    if isinstance(network, Mapping) and "task" in network.get("input", ()):
        found["network"] = _network(network)
    coverage = manifest.get("coverage")
    if isinstance(coverage, Mapping) and "multiplications" in coverage:
        # The first versions did not look for calls of softmax and norms; their ranges are static.
        lacking = {"float_functions": [], "dynamic_scales": 0, "dynamic_values": 0}
        found["coverage"] = {**lacking, **coverage}
    if "request" in manifest and "command" not in manifest["request"]:
        scheme, norms = _scheme(manifest["scheme"])
        found["scheme"] = scheme
        found["request"] = _request(manifest, scheme, manifest["protocol"], norms)
        iterations = sum(phase["iterations"] for phase in phases)
        found["method"] = {"iterations": iterations, "prepare": [], **manifest["method"]}
    return found


def _network(network: Mapping[str, Any]) -> dict[str, Any]:
    """The network, with its task under the current name."""
    given = network["input"]
    return {**network, "input": {**given, "task": current_task(given["task"])}}


def _scheme(scheme: Mapping[str, Any] | None) -> tuple[dict[str, Any] | None, str]:
    if scheme is None:
        return None, "kept"
    rest = {name: value for name, value in scheme.items() if name != "norms"}
    norms = scheme.get("norms", "kept")
    return {
        "joins": None,
        "weights_range": "full",
        **rest,
    }, "re-estimated" if norms == "matched" else norms


def _method(method: Mapping[str, Any]) -> dict[str, Any]:
    schedule = method["schedule"]
    images = {
        "part": "Generator",
        "terms": [_term(term) for term in method["generator_terms"]],
        "targets": method.get("targets"),
        "condition": method.get("centres"),
        "latent": method.get("latent"),
        "batch": schedule["batch"],
        "alone": schedule["student_warmup"],
        "observe": schedule["range_warmup"],
        "lr": schedule.get("generator_lr"),
        "decay": _decay(schedule, after=0),
    }
    train = {
        "part": "Train",
        "terms": [_term(term) for term in method["student_terms"]],
        "iterations": schedule["iterations"] - schedule["student_warmup"],
        "batch": schedule["batch"],
        "lr": schedule["student_lr"],
        "optimizer": schedule.get("student_optimizer", "sgd"),
        "decay": _decay(schedule, after=schedule["student_warmup"]),
        "momentum": schedule.get("momentum"),
        "weight_decay": schedule.get("weight_decay"),
        "clip": schedule.get("clip"),
        "views": [method["mixup"]] if method.get("mixup") else [],
    }
    return {
        "name": method["name"],
        "iterations": schedule["iterations"],
        "paper": method.get("paper"),
        "add_ons": method.get("add_ons", []),
        "preset": method["preset"],
        "images": images,
        "recovery": [train],
        "prepare": [],
        "scheme": {},
    }


def _decay(schedule: Mapping[str, Any], *, after: int) -> dict[str, Any]:
    """The decay of a learning rate; its steps are counted from iteration ``after``."""
    if schedule.get("decay") == "cosine":
        return {"part": "Cosine", "rise": schedule["lr_warmup"] if after else 0}
    return {"part": "Steps", "at": [step - after for step in schedule.get("milestones", [])]}


def _term(term: Mapping[str, Any]) -> dict[str, Any]:
    rest = {name: value for name, value in term.items() if name not in ("weight", "term")}
    return {"weight": term["weight"], "part": term["term"], **rest}


def _request(
    manifest: Mapping[str, Any],
    scheme: Mapping[str, Any] | None,
    protocol: Mapping[str, Any],
    norms: str,
) -> dict[str, Any]:
    asked = manifest.get("request", {"method": manifest["method"]["name"], "data": None})
    ended = {"compile": manifest.get("configuration", {}).get("compiled", False)}
    common = {
        "method": asked["method"],
        "seed": protocol["seed"],
        "precision": protocol["training_precision"],
        "micro_batches": protocol["accumulate"],
        "data": asked.get("data"),
        **ended,
    }
    if scheme is None:
        own: dict[str, Any] = {"command": "distill", "inherit": asked.get("inherit", False)}
    else:
        own = {
            "command": "quantize",
            "bits": protocol["bits"],
            "placement": protocol["placement"],
            "first_last": scheme["first_last_bits"],
            "override": [f"{name}={bits}" for name, bits in protocol["overrides"].items()],
            "elementwise": scheme["joins"],
            "weights_range": scheme["weights_range"],
            "ranges": scheme["ranges"],
            "gradient": scheme["gradient"],
            "batch_norm": norms,
            "preset": manifest["method"]["preset"],
        }
    given = {**own, **common}
    return {
        name: value
        for name, value in given.items()
        # A method given as an object has no name, but it is on record too.
        if name == "method" or not (value is None or value is False or value == [])
    }


def _history(history: Mapping[str, Any]) -> dict[str, Any]:
    """The history, with losses on mixed images named after the view that mixes them."""
    losses = [
        {name.replace("mixed/", "mixup/"): value for name, value in entry.items()}
        for entry in history["losses"]
    ]
    return {**history, "losses": losses}


def _phase(phase: Mapping[str, Any], manifest: Mapping[str, Any]) -> dict[str, Any]:
    """A phase with its kind and its precision, which the first versions lacked."""
    if "kind" in phase:
        return dict(phase)
    trained = phase["name"].startswith(("generator", "student", "dreaming"))
    precision = manifest["protocol"]["training_precision"] if trained else "32"
    return {**phase, "kind": phase["name"], "precision": precision}


def _phases(schedule: Mapping[str, Any], seconds: float) -> list[dict[str, Any]]:
    """The two phases of schema 1, whose seconds were counted together."""
    alone, whole = schedule["student_warmup"], schedule["iterations"]
    lengths = {"generator warms up": alone, "student learns": whole - alone}
    return [
        {"name": name, "iterations": length, "seconds": seconds * length / whole}
        for name, length in lengths.items()
    ]
