"""Phases that visit a student's quantizers and layers in the order executed, one in each step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dreamquant.errors import MethodError, NetworkError
from dreamquant.networks.probe import unlike
from dreamquant.networks.taps import entering
from dreamquant.recovery.adapted import adapted, statistics_of
from dreamquant.recovery.branches import Branch, find_branches
from dreamquant.recovery.walk import LayerMet, RangeMet, walk
from dreamquant.synthesis.source import Images
from dreamquant.training.bench import Bench
from dreamquant.training.losses import Losses
from dreamquant.training.phase import Phase

_SEED = (
    7_000_003  # images have their own random generator, so that a resumed run draws the same ones
)


@torch.no_grad()
def require_steady(network: nn.Module, example: Tensor) -> None:
    """Refuse a network whose layers do not run in the same order for all images.

    Forward passes of many images wait for each other at every layer, so all must come there.

    Args:
        network: in eval mode.
        example: normalised images (B, C, H, W).

    Raises:
        NetworkError: the order depends on the images.
    """
    names = {module: name for name, module in network.named_modules() if not [*module.children()]}
    orders: set[tuple[str, ...]] = set()
    for images in (example, *unlike(example)):
        order: list[str] = []

        def note(module: nn.Module, _: tuple[Any, ...], order: list[str] = order) -> None:
            order.append(names[module])

        with entering(names, note):
            network(images)
        orders.add(tuple(order))
    if len(orders) > 1:
        raise NetworkError(
            "which layers run depends on the images, and a closed form needs them all",
            where=type(network).__name__,
            remedy="use a method that trains the student, such as --method adadfq",
        )


class Walked(Phase):
    """A phase whose steps each visit one activation quantizer or one layer.

    A phase that was interrupted visits the earlier ones again without changing them.

    Args:
        name: shown to the user.
        bench: networks, random generators and device of the run.
        batches: makes the images; called at the first step.
        branches: the layers to visit.
        act: called with every quantizer and layer that is visited.
        adapt: whether batch norms of both networks use the images' own statistics meanwhile, see
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
        """Visit the next one."""
        if self._meetings is None:
            self._meetings = self._walk()
            for _ in range(self.done):
                next(self._meetings)
        self._act(next(self._meetings))
        if self.done + 1 == self.total:
            self._meetings = None
        return {}

    def abandon(self) -> None:
        """End the passes and remove hooks and adapted batch norms from both networks."""
        self._meetings = None

    def _walk(self) -> Iterator[RangeMet | LayerMet]:
        # This is a Python generator: when it is dropped, the passes end.
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
    """``count`` images in batches, or all where there are fewer; each call returns the same images.

    Raises:
        MethodError: the method has no images.
    """
    if images is None:
        raise MethodError(
            f"{part} needs images, and the method has none",
            remedy="choose a method that has images: `dreamquant methods` lists them",
        )
    count = min(count, images.kept or count)
    random = torch.Generator(bench.device).manual_seed(bench.seed + _SEED)
    with torch.no_grad():
        sizes = [min(batch, count - start) for start in range(0, count, batch)]
        return [images.batch(size, random).images.detach() for size in sizes]


def branches_of(bench: Bench) -> dict[str, Branch]:
    """The operations after each quantized layer of the student."""
    student = bench.student
    branches = find_branches(bench.prepared, list(student.quantized_weights()), bench.example())
    if student.sites.whole_biases is None:
        return branches
    # A sum reads tensors that are quantized after the layer: no layer can be solved at a sum.
    return {name: branch._replace(summed=False) for name, branch in branches.items()}
