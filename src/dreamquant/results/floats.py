"""What of a result is computed and stored in float, in words, from the coverage on record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# What a placement leaves in float, another may round.
_REMEDIES = {
    "relu-output": "--placement layer-input rounds what every convolution and linear layer reads",
    "layer-input": "--placement operands also rounds operands of other matrix products",
    "operands": "other products run on integers once they are written as layers or matrix products",
}
_FEW_PERCENT = 5.0
_SHOWN = 4  # names


@dataclass(frozen=True)
class InFloat:
    """Shares of a network that stay in float.

    Attributes:
        multiplications: percent of those of all convolutions and matrix products, with an operand
            that is not on a grid.
        weights: percent of the numbers in parameters of two or more dimensions.
        products: which products, in words; empty where all are on integers.
        parameters: which parameters, likewise.
        functions: softmax and norms, which no placement rounds, with their number; likewise.
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
        """A sentence that must head the result; empty where little stays in float."""
        if max(self.multiplications, self.weights) <= _FEW_PERCENT:
            return ""
        return (
            f"{self.multiplications:.1f} % of the multiplications and {self.weights:.1f} % of the "
            "weights run in float"
        )


def in_float(coverage: Mapping[str, Any]) -> InFloat | None:
    """The shares of the coverage on record; ``None`` of results of before they were counted."""
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
    """What may bring more of a network on integers than a placement does."""
    return _REMEDIES[placement]


def _of(what: str) -> str:
    return f" ({what})" if what else ""


def _percent(part: int, whole: int) -> float:
    return 100 * part / max(whole, 1)


def _named(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    shown = ", ".join(names[:_SHOWN])
    return f"{shown} and {more} more" if more > 0 else shown
