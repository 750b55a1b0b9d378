"""Block reconstruction: rounding and scales learned such that blocks give what the teacher's do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from dreamquant.errors import SchemeError
from dreamquant.quantization.scheme import Scheme
from dreamquant.recovery.branches import Branch
from dreamquant.recovery.part import Recovery
from dreamquant.recovery.reconstruction import Reconstruction, Schedule
from dreamquant.recovery.stepwise import branches_of, drawn
from dreamquant.recovery.units import Unit, find_units
from dreamquant.synthesis.source import Images
from dreamquant.training.bench import Bench
from dreamquant.training.losses import Losses
from dreamquant.training.phase import Phase

_SEED = 11_000_003


@dataclass(frozen=True)
class Reconstruct(Recovery):
    """Unit by unit, weights' rounding, scales and activation steps are learned by gradients.

    A unit reads what the quantized units before it make of the images, and should give what the
    teacher's does: mean over positions of the squared error, summed over channels. AdaRound's soft
    bits with learned scales (GENIE), elements of activations left unquantized at random (QDrop),
    blocks as units (BRECQ, ICLR 2021). Nothing of it is left in the student: it holds the scales
    and the decided weights; a unit that did not gain by it keeps what it had.

    Attributes:
        count: images.
        batch: of them in one step.
        steps: of each unit.
        lr_bits: Adam's rate of the soft bits.
        lr_scale: of logarithms of weight scales; it falls along a cosine.
        lr_range: of logarithms of activation scales, likewise.
        lr_bias: of what is added to each layer's channels; 0 leaves biases alone.
        drop: probability that an element of an activation, or of a unit's input, is left as it is
            in the teacher.
        decide: weight of the penalty on undecided bits.
        units: patterns of module names in place of the blocks that are found.
    """

    weights_by: ClassVar[str] = "learned rounding and scales"

    count: int = 256
    batch: int = 32
    steps: int = 400
    lr_bits: float = 1e-2
    lr_scale: float = 1e-3
    lr_range: float = 5e-4
    lr_bias: float = 1e-3
    drop: float = 0.5
    decide: float = 0.01
    units: tuple[str, ...] = ()

    @property
    def iterations(self) -> int:
        """Steps of a unit, which can be stretched."""
        return self.steps

    def stretched(self, ratio: float) -> Reconstruct:
        """The same with ``ratio`` times as many steps of each unit."""
        return replace(self, steps=max(1, round(self.steps * ratio)))

    def require_scheme(self, scheme: Scheme) -> None:
        """Refuse tensors that are stored once for several readers: their reads look all alike."""
        if scheme.joins is not None:
            raise SchemeError(
                "blocks cannot be reconstructed where element-wise and concat inputs are quantized",
                where="--elementwise",
                remedy="leave --elementwise out, or give --scheme paper",
            )

    def phases(self, bench: Bench, images: Images | None) -> Iterator[Phase]:
        """One phase for each unit."""
        branches = branches_of(bench)
        pool: list[Tensor] = []
        for unit in find_units(bench.prepared, list(branches), bench.example(), self.units):
            yield _UnitPhase(self, bench, images, unit, branches, pool)


class _UnitPhase(Phase):
    kind = "reconstructing units"
    stretches = True

    def __init__(
        self,
        recovery: Reconstruct,
        bench: Bench,
        images: Images | None,
        unit: Unit,
        branches: Mapping[str, Branch],
        pool: list[Tensor],
    ) -> None:
        super().__init__()
        self.name, self.total = f"reconstructing {unit.name}", recovery.steps
        self.recovery, self.bench, self.source = recovery, bench, images
        self.unit, self.branches, self.pool = unit, branches, pool
        self._work: Reconstruction | None = None
        self._saved: Mapping[str, Any] = {}

    def step(self) -> Losses:
        """One update of everything that the unit learns."""
        if self._work is None:
            self._work = self._open()
        losses = self._work.step(self.done / self.total)
        if self.done + 1 == self.total:
            self._work.settle()
            self._work = None
        return losses

    def _open(self) -> Reconstruction:
        recovery = self.recovery
        if not self.pool:  # drawn once for all units
            count, batch = recovery.count, recovery.batch
            self.pool.extend(drawn(self.bench, self.source, count, batch, "Reconstruct"))
        random = torch.Generator(self.bench.device).manual_seed(self.bench.seed + _SEED)
        schedule = Schedule(
            rates=(recovery.lr_bits, recovery.lr_scale, recovery.lr_range, recovery.lr_bias),
            drop=recovery.drop,
            decide=recovery.decide,
            batch=recovery.batch,
        )
        work = Reconstruction(
            self.bench.student,
            self.bench.prepared,
            self.unit,
            self.branches,
            self.pool,
            schedule,
            random,
        )
        if self._saved:
            work.load_state_dict(self._saved)
        return work

    def state_dict(self) -> dict[str, Any]:
        """What is learned so far."""
        return {} if self._work is None else self._work.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Taken over when work begins: the student is the one of that time."""
        self._saved = state
