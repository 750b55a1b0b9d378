"""A look into a run now and then, for TensorBoard: images, weights, codes, ranges."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from dreamquant.diagnostics.dreams import dream
from dreamquant.networks.pixels import denormalise
from dreamquant.networks.spec import InputSpec
from dreamquant.training.loop import Training

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

_IMAGES = 16
_LOOKS = 10  # in a run


class Looks:
    """Shows what the generator makes of the same noise, and how the student is quantized.

    Under ``images/synthetic``, ``weights/LAYER``, ``codes/LAYER``, ``range/QUANTIZER/low`` and
    ``…/high``: see docs/guide/progress.md.

    Args:
        writer: of the log.
        spec: of the images.
        seed: of the noise.
    """

    def __init__(self, writer: SummaryWriter, spec: InputSpec, seed: int) -> None:
        self.writer, self.spec, self.seed = writer, spec, seed

    def __call__(self, training: Training, losses: dict[str, float] | None) -> None:
        """Look, if it is time to."""
        total, iteration = training.recipe.schedule.iterations, training.iteration
        if iteration % max(total // _LOOKS, 1) and iteration != total:
            return
        with torch.no_grad():
            self._show_images(training, iteration)
            self._show_student(training, iteration)

    def _show_images(self, training: Training, iteration: int) -> None:
        random = torch.Generator(training.accelerator.device).manual_seed(self.seed)
        targets = training.recipe.targets.sample(_IMAGES, training.classes, random)
        images = dream(training, random, targets).images.float().cpu()
        pixels = denormalise(images, self.spec).clamp(0, 1)
        shown = pixels if pixels.shape[1] == 3 else pixels[:, :1]
        self.writer.add_images("images/synthetic", shown, iteration)

    def _show_student(self, training: Training, iteration: int) -> None:
        write = self.writer
        for name, (latent, quantizer) in training.student.quantized_weights().items():
            write.add_histogram(f"weights/{name}", latent.float(), iteration)
            write.add_histogram(f"codes/{name}", quantizer.codes(latent), iteration)
        for name, activation in training.student.activation_quantizers().items():
            for end, code in (("low", activation.grid.qmin), ("high", activation.grid.qmax)):
                value = activation.scale * (code - activation.zero_point)
                write.add_scalar(f"range/{name}/{end}", value, iteration)
