"""How well a student's outputs follow the teacher's from one image to the next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class Explained:
    """The share of the variance of a teacher's outputs that a student's outputs explain.

    It is the square of the correlation between their outputs, taken over all images and outputs
    together, after the teacher's mean output has been subtracted from both:
    with ``p`` and ``q`` the outputs less that mean, ``(Σ p·q)² / (Σ p² · Σ q²)``.

    - What is the same for all images does not count, unless the student differs in it. On
      procedural images it is most of an output.
    - The scale of the student's outputs does not count. Rounded networks often have smaller
      logits, in the right order.

    Images are added in batches of any size, and only sums are kept.
    """

    def __init__(self) -> None:
        self.images = 0
        self._sums: dict[str, Tensor] = {}

    def add(self, teacher: Tensor, student: Tensor) -> None:
        """Add the outputs (B, *) of both networks for the same images."""
        p, q = (outputs.flatten(1).double() for outputs in (teacher, student))
        self.images += len(p)
        sums = {
            "p": p.sum(0),
            "q": q.sum(0),
            "pp": p.square().sum(),
            "pq": (p * q).sum(),
            "qq": q.square().sum(),
        }
        self._sums = {name: self._sums.get(name, 0) + value for name, value in sums.items()}

    @property
    def percent(self) -> float:
        """The share, 0 to 100; 0 where either network's outputs are the same for all images, and
        where they go in opposite directions.
        """
        p, q, pp, pq, qq = (self._sums[name] for name in ("p", "q", "pp", "pq", "qq"))
        mean = p / self.images
        shared = pq - mean @ q
        # Rounding leaves tiny negative numbers where nothing varies.
        of_teacher = (pp - mean @ p).clamp(min=0)
        of_student = (qq - 2 * (mean @ q) + self.images * (mean @ mean)).clamp(min=0)
        tiny = torch.finfo(torch.float64).tiny
        return float(100 * shared.clamp(min=0) ** 2 / (of_teacher * of_student).clamp(min=tiny))

    def state_dict(self) -> dict[str, Any]:
        """The sums so far."""
        return {"images": self.images, "sums": self._sums}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over sums from :meth:`state_dict`."""
        self.images, self._sums = state["images"], state["sums"]
