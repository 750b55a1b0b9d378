"""Storage of a quantized network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Storage(NamedTuple):
    """Bytes of a quantized network's tensors.

    Attributes:
        full: bytes of the teacher, 4 for each number.
        weights: packed weights.
        scales: scales and zero-points.
        left_in_float: all other tensors.
    """

    full: int
    weights: int
    scales: int
    left_in_float: int

    @property
    def small(self) -> int:
        """Total of the student."""
        return self.weights + self.scales + self.left_in_float


def storage_of(coverage: Mapping[str, Any]) -> Storage:
    """The storage according to a recorded coverage."""
    left = coverage["float_bytes"]
    full = 4 * sum(layer["weights"] for layer in coverage["layers"]) + left
    return Storage(full, coverage["weight_bytes"], coverage["scale_bytes"], left)
