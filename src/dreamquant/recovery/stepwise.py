"""Phases that meet a student's quantizers and layers in the order executed, one each step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from dreamquant.errors import MethodError
from dreamquant.recovery.adapted import adapted, statistics_of
from dreamquant.recovery.branches import Branch, find_branches
from dreamquant.recovery.walk import LayerMet, RangeMet, walk
from dreamquant.synthesis.source import Images
from dreamquant.training.bench import Bench
from dreamquant.training.losses import Losses
from dreamquant.training.phase import Phase

_SEED = 7_000_003  # images are drawn apart from the run's random numbers, and alike on resume


class Walked(Phase):
    """Each step takes one activation quantizer or one layer.

    A phase that was half done walks through what is done already without changing it.

    Args:
        name: shown to the user.
        bench: what the run works on.
        batches: makes the images; called at the first step.
        branches: layers to meet.
        act: called with everything that is met.
        adapt: whether batch norms of both networks take the images' own statistics meanwhile, see
            :mod:`dreamquant.recovery.adapted`.
    """

    def __init__(
        self,
        name: str,
        bench: Bench,
        batches: Callable[[], list[Tensor]],
        branches: Mapping[str, Branch],
        act: Callable[[RangeMet | LayerMet], None],
        *,
        adapt: bool = False,
    ) -> None:
        super().__init__()
        self.name, self.bench = name, bench
        self.total = len(bench.student.activation_quantizers()) + len(branches)
        self._batches, self._branches, self._act = batches, branches, act
        self._adapt = adapt
        self._meetings: Iterator[RangeMet | LayerMet] | None = None

    def step(self) -> Losses:
        """Meet the next one."""
        if self._meetings is None:
            self._meetings = self._walk()
            for _ in range(self.done):
                next(self._meetings)
        self._act(next(self._meetings))
        if self.done + 1 == self.total:
            self._meetings = None
        return {}

    def abandon(self) -> None:
        """End the passes: hooks and adapted batch norms are gone from both networks."""
        self._meetings = None

    def _walk(self) -> Iterator[RangeMet | LayerMet]:
        # A generator: dropping it, wherever it is, ends the passes.
        student = self.bench.student.eval()
        student.observe(False)
        teacher, batches = self.bench.prepared, self._batches()
        maps = statistics_of(teacher, batches) if self._adapt else {}
        with (
            adapted((teacher, student.network), maps),
            walk(student, teacher, batches, self._branches) as met,
        ):
            yield from met


def drawn(bench: Bench, images: Images | None, count: int, batch: int, part: str) -> list[Tensor]:
    """``count`` images in batches, or all where there are fewer; the same whenever they are drawn.

    Raises:
        MethodError: the method has no images.
    """
    if images is None:
        raise MethodError(
            f"{part} works on images, and the method has none",
            remedy="choose a method that has: `dreamquant methods` lists them",
        )
    count = min(count, images.kept or count)
    random = torch.Generator(bench.device).manual_seed(bench.seed + _SEED)
    with torch.no_grad():
        sizes = [min(batch, count - start) for start in range(0, count, batch)]
        return [images.batch(size, random).images.detach() for size in sizes]


def branches_of(bench: Bench) -> dict[str, Branch]:
    """What follows each quantized layer of the student."""
    student = bench.student
    branches = find_branches(bench.prepared, list(student.quantized_weights()), bench.example())
    if student.sites.whole_biases is None:
        return branches
    # Sums read stored tensors, which are quantized after the layer: its turn cannot wait for them.
    return {name: branch._replace(summed=False) for name, branch in branches.items()}
