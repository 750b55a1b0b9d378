"""Writes images, weights, codes and ranges to TensorBoard several times during a run."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING
from zlib import crc32

import torch
from torch import Tensor

from dreamquant.networks.pixels import denormalise, heat_map
from dreamquant.networks.spec import InputSpec
from dreamquant.quantization.student import Student
from dreamquant.synthesis.source import Images
from dreamquant.training.phase import LOG_EVERY, Run

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

_IMAGES = 16
_LOOKS = 10  # number of times in a long phase


class Looks:
    """Shows the method's images for the same noise, and the quantization of the student.

    A histogram is written if its layer has changed since the last one: a phase that rounds layer
    after layer changes one at a time. Under ``images/synthetic``, ``weights/LAYER``,
    ``codes/LAYER``, ``range/QUANTIZER/low`` and ``…/high``: see docs/guide/progress.md.

    Args:
        writer: writer of the log.
        spec: input of the network.
        seed: seed of the noise.
        images: images of the method; ``None`` if it has none.
    """

    def __init__(
        self, writer: SummaryWriter, spec: InputSpec, seed: int, images: Images | None
    ) -> None:
        self.writer, self.spec, self.seed, self.images = writer, spec, seed, images
        self.written: dict[str, int] = {}  # checksum of each layer's last histogram

    def __call__(self, run: Run, losses: dict[str, float] | None) -> None:
        """Write, if it is time."""
        phase = run.phase
        assert phase is not None
        if phase.done % max(phase.total // _LOOKS, LOG_EVERY) and not phase.over:
            return
        with torch.no_grad():
            if self.images is not None and self.images.ready:
                self._show_images(self.images, run.done)
            self._show_student(run.bench.student, run.done)

    def _show_images(self, source: Images, iteration: int) -> None:
        random = torch.Generator(source.bench.device).manual_seed(self.seed)
        images = source.batch(_IMAGES, random).images.float().cpu()
        if self.spec.features:
            maps = heat_map(images)
            self.writer.add_images("images/synthetic", maps, iteration, dataformats="NHWC")
            return
        pixels = denormalise(images, self.spec).clamp(0, 1)
        shown = pixels if pixels.shape[1] == 3 else pixels[:, :1]
        self.writer.add_images("images/synthetic", shown, iteration)

    def _show_student(self, student: Student, iteration: int) -> None:
        write = self.writer
        for name, (latent, quantizer) in student.quantized_weights().items():
            now = _checksum([latent, *quantizer.state_dict().values()])
            if self.written.get(name) == now:
                continue
            self.written[name] = now
            write.add_histogram(f"weights/{name}", latent.float(), iteration)
            write.add_histogram(f"codes/{name}", quantizer.codes(latent), iteration)
        for name, activation in student.activation_quantizers().items():
            for end, code in (("low", activation.grid.qmin), ("high", activation.grid.qmax)):
                value = activation.scale * (code - activation.zero_point)
                write.add_scalar(f"range/{name}/{end}", value, iteration)


def _checksum(tensors: Iterable[Tensor]) -> int:
    found = 0
    for tensor in tensors:
        found = crc32(tensor.float().cpu().contiguous().numpy().data, found)
    return found
