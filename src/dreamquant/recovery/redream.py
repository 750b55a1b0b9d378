"""Images that follow the student: after its training they are optimised again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from dreamquant.errors import MethodError
from dreamquant.recovery.part import Recovery
from dreamquant.synthesis.pixels import PixelPool
from dreamquant.synthesis.source import Images
from dreamquant.terms.contract import Minimizer, Terms
from dreamquant.training.bench import Bench
from dreamquant.training.decay import stretch
from dreamquant.training.phase import Phase


@dataclass(frozen=True)
class Redream(Minimizer, Recovery):
    """Optimises every image of the pool further, on terms that may read the student.

    Attributes:
        terms: the losses that the images minimise.
        steps: steps of Adam on each batch of the pool.
    """

    terms: Terms
    steps: int = 100

    @property
    def iterations(self) -> int:
        """Steps on one batch."""
        return self.steps

    def stretched(self, ratio: float) -> Redream:
        """The same with ``ratio`` times as many steps."""
        return replace(self, steps=stretch(self.steps, ratio))

    def phases(self, bench: Bench, images: Images | None) -> Iterator[Phase]:
        """One phase for each batch of the pool.

        Raises:
            MethodError: the method's images are not optimised pixels.
        """
        if not isinstance(images, PixelPool):
            raise MethodError(
                "Redream needs images of Pixels, and the method has others",
                remedy="give the method images=Pixels(…), or leave Redream out",
            )
        yield from images.again(self.terms, self.steps)
