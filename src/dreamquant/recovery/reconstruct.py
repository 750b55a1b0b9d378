"""Block reconstruction: learned rounding and scales, with the teacher's blocks as targets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import Tensor, nn

from dreamquant.errors import SchemeError
from dreamquant.networks.taps import Output
from dreamquant.quantization.convert import executed_layers, prepared
from dreamquant.quantization.scheme import Scheme
from dreamquant.recovery.branches import Branch
from dreamquant.recovery.part import Recovery
from dreamquant.recovery.reconstruction import Reconstruction, Schedule, read_by
from dreamquant.recovery.stepwise import branches_of, drawn
from dreamquant.recovery.unit_step import UnitTerms, require_taps
from dreamquant.recovery.units import Unit, find_units
from dreamquant.synthesis.source import Images, require_any_output
from dreamquant.terms.contract import Terms
from dreamquant.terms.unit_error import UnitError
from dreamquant.training.bench import Bench
from dreamquant.training.losses import Losses
from dreamquant.training.phase import Phase
from dreamquant.training.rng import Rng

_SEED = 11_000_003


@dataclass(frozen=True)
class Reconstruct(Recovery):
    """Learns rounding, weight scales and activation scales by gradients, one unit after another.

    A unit of the student reads what the quantized units before it compute from the images, and
    minimises terms against the same unit of the teacher: both are views of this unit alone.
    Rounding is learned by AdaRound's soft bits, together with the scales (GENIE, CVPR 2023); random
    elements of activations stay unquantized (QDrop, ICLR 2022); units are blocks (BRECQ, ICLR
    2021). When a unit is done, the student holds only its scales and its rounded weights. A unit
    whose loss did not fall keeps the state that it had before.

    Attributes:
        terms: that each unit minimises; what they read is looked for inside the unit.
        count: images to learn from.
        batch: images of one step.
        steps: steps of each unit.
        lr_bits: Adam's learning rate of the soft bits.
        lr_scale: learning rate of the logarithms of weight scales; it falls along a cosine.
        lr_range: learning rate of the logarithms of activation scales; it falls likewise.
        lr_bias: learning rate of a bias for each channel of a layer; 0 leaves biases unchanged.
        drop: probability that an element of an activation, or of a unit's input, keeps the value
            that it has in the teacher.
        decide: weight of the penalty on soft bits between 0 and 1.
        units: patterns of module names; these modules replace the blocks that are found.
    """

    weights_by: ClassVar[str] = "learned rounding and scales"

    terms: Terms = (UnitError(),)
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
        """Refuse schemes that store a tensor once for several readers."""
        if scheme.joins is not None:
            raise SchemeError(
                "blocks cannot be reconstructed where element-wise and concat inputs are quantized",
                where="--elementwise",
                remedy="leave --elementwise out, or give --scheme paper",
            )

    def suited(self, network: nn.Module, example: Tensor, scheme: Scheme) -> Reconstruct:
        """The same, where every unit has what its terms read.

        Raises:
            SchemeError: tensors are stored once for several readers.
            MethodError: a term needs classes, which a unit does not have.
            NetworkError: a unit lacks what a term reads inside it.
        """
        self.require_scheme(scheme)
        require_any_output(self.terms, "block reconstruction")
        taps = dict.fromkeys((*self.reads.teacher_taps, *self.reads.student_taps))
        if set(taps) - {Output()}:
            network = prepared(network, scheme)
            layers = executed_layers(network, example)
            for name, _ in find_units(network, layers, example, self.units):
                unit = network.get_submodule(name)
                require_taps(unit, name, read_by(unit, network, example), tuple(taps))
        return self

    @property
    def reads(self) -> UnitTerms:
        """The terms with their taps, which are taps on a unit and not on the whole network."""
        return UnitTerms(self.terms)

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
        if not self.pool:  # the same images serve all units
            count, batch = recovery.count, recovery.batch
            self.pool.extend(drawn(self.bench, self.source, count, batch, "Reconstruct"))
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
            recovery.reads,
            schedule,
            Rng.seeded(self.bench.seed + _SEED, self.bench.device),
        )
        if self._saved:
            work.load_state_dict(self._saved)
        return work

    def state_dict(self) -> dict[str, Any]:
        """What has been learned so far."""
        return {} if self._work is None else self._work.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Keep the state until work on the unit begins, and apply it then."""
        self._saved = state
