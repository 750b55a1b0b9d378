"""Describes, from the coverage on record, which parts of a result stay in float."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# Another placement may round parts that a placement leaves in float.
_REMEDIES = {
    "relu-output": "--placement layer-input rounds the input of every convolution and linear layer",
    "layer-input": "--placement operands also rounds operands of other matrix products",
    "operands": "other products run on integers if they are written as layers or matrix products",
}
_FEW_PERCENT = 5.0
_SHOWN = 4  # number of names


@dataclass(frozen=True)
class InFloat:
    """The fractions of a network that stay in float.

    Attributes:
        multiplications: percentage of the multiplications of convolutions and matrix products
            with an operand that is not quantized.
        weights: percentage of the numbers in parameters with at least two dimensions.
        products: names of these products; empty if all run on integers.
        parameters: names of these parameters; empty if there are none.
        functions: softmax and norms, which no placement rounds, with their number; empty if there
            are none.
    """

    multiplications: float
    weights: float
    products: str
    parameters: str
    functions: str

    def __str__(self) -> str:
        parts = [
            f"{self.multiplications:.1f} % of the multiplications{_of(self.products)}",
            f"{self.weights:.1f} % of the weights{_of(self.parameters)}",
        ]
        return "; ".join([*parts, *([self.functions] if self.functions else [])])

    @property
    def warning(self) -> str:
        """A warning for the top of the result; empty if little stays in float."""
        if max(self.multiplications, self.weights) <= _FEW_PERCENT:
            return ""
        return (
            f"{self.multiplications:.1f} % of the multiplications and {self.weights:.1f} % of the "
            "weights run in float"
        )


def in_float(coverage: Mapping[str, Any]) -> InFloat | None:
    """The fractions from the coverage on record; ``None`` for results of older versions."""
    if "multiplications" not in coverage:
        return None
    layers = coverage["layers"]
    unrounded = [
        f"{layer['name']} (its {'input' if layer['weight_on_grid'] else 'weight'})"
        for layer in layers
        if not (layer["input_on_grid"] and layer["weight_on_grid"])
    ]
    others = _counted(coverage["left_in_float"])
    weights = [entry["count"] for entry in coverage["float_weights"]]
    stored = sum(weights) + sum(layer["weights"] for layer in layers)
    return InFloat(
        _percent(coverage["float_multiplications"], coverage["multiplications"]),
        _percent(sum(weights), stored),
        _named([*others, *unrounded]),
        _named([entry["name"] for entry in coverage["float_weights"]]),
        ", ".join(_counted(coverage["float_functions"])),
    )


def _counted(names: Sequence[str]) -> list[str]:
    counts = Counter(names).items()
    return [f"{count} x {name}" if count > 1 else name for name, count in counts]


def remedy(placement: str) -> str:
    """The way to run more of a network on integers than with this placement."""
    return _REMEDIES[placement]


def _of(what: str) -> str:
    return f" ({what})" if what else ""


def _percent(part: int, whole: int) -> float:
    return 100 * part / max(whole, 1)


def _named(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    shown = ", ".join(names[:_SHOWN])
    return f"{shown} and {more} more" if more > 0 else shown
