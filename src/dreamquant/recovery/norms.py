"""Batch-norm re-estimation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dreamquant.errors import MethodError
from dreamquant.quantization.choices import Norms
from dreamquant.quantization.norms import match_norms
from dreamquant.recovery.part import Recovery
from dreamquant.synthesis.source import Images
from dreamquant.training.bench import Bench
from dreamquant.training.losses import Losses
from dreamquant.training.phase import Phase


@dataclass(frozen=True)
class ReestimateNorms(Recovery):
    """Gives each channel of the student's batch-norm outputs the teacher's mean and deviation.

    For means this is bias correction with measured values (Nagel et al., ICCV 2019, section 4.2).
    Batch-norm tuning (Hubara et al., arXiv 2006.10518) takes both statistics from real images; to
    compare with the teacher's statistics on the same synthetic images is our choice.

    Attributes:
        batches: number of batches that both networks see; 0 keeps the teacher's statistics.
        batch: images of one batch.
    """

    batches: int = 16
    batch: int = 16

    def phases(self, bench: Bench, images: Images | None) -> Iterator[Phase]:
        """One phase of one step.

        Raises:
            MethodError: there are no images to estimate on.
        """
        if not self.batches:
            return
        if images is None:
            raise MethodError(
                "batch norms are re-estimated on images, and the method has none",
                remedy="give the method images, or leave ReestimateNorms out",
            )
        yield _Reestimation(self, bench, images)


def reestimating(recovery: tuple[Recovery, ...], norms: Norms) -> tuple[Recovery, ...]:
    """A method's recovery with batch norms ``kept`` or ``re-estimated``, as the user asks for."""
    batches = ReestimateNorms().batches if norms == "re-estimated" else 0
    if not any(isinstance(part, ReestimateNorms) for part in recovery):
        return (ReestimateNorms(batches=batches), *recovery)
    return tuple(
        replace(part, batches=batches) if isinstance(part, ReestimateNorms) else part
        for part in recovery
    )


class _Reestimation(Phase):
    name = "re-estimating batch norms"
    total = 1

    def __init__(self, recovery: ReestimateNorms, bench: Bench, images: Images) -> None:
        super().__init__()
        self.recovery, self.bench, self.source = recovery, bench, images
        self.images = recovery.batches * recovery.batch

    def step(self) -> Losses:
        bench = self.bench
        bench.student.observe(False)
        match_norms(bench.student, bench.prepared, self._batches())
        return {}

    def _batches(self) -> Iterator[Tensor]:
        # Every process generates all of these images, and so computes the same statistics.
        for _ in range(self.recovery.batches):
            with torch.no_grad():
                yield self.source.batch(self.recovery.batch).images
