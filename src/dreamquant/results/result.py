"""A result: the quantized network and its manifest, as one folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from dreamquant.diagnostics.figure import picture
from dreamquant.evaluation.data import open_images
from dreamquant.evaluation.evaluation import Evaluation
from dreamquant.evaluation.metrics import evaluate
from dreamquant.networks.found import Boxes
from dreamquant.networks.origins import boxes_of
from dreamquant.networks.spec import InputSpec
from dreamquant.quantization.student import Student
from dreamquant.results.files import (
    sha256_file,
    write_bytes,
    write_json,
    write_tensors,
)
from dreamquant.results.folder import (
    ANALYSIS,
    CHECKPOINT,
    DIAGNOSTICS,
    DIAGNOSTICS_PICTURE,
    SAMPLES,
    STUDENT,
    claim_folder,
)
from dreamquant.results.manifest import (
    MANIFEST,
    read_input,
    read_origin,
    read_summary,
)
from dreamquant.results.samples import encode_tiles, save_samples
from dreamquant.results.student import encode


@dataclass(frozen=True)
class Samples:
    """Synthetic images for display.

    Attributes:
        images: normalised images (N, C, H, W), or features (N, ...).
        targets: (N,) target labels; ``None`` for a network that is not a classifier.
        confidence: (N,) the teacher's probability of the target; ``None`` without targets.
    """

    images: Tensor
    targets: Tensor | None = None
    confidence: Tensor | None = None


@dataclass
class Result:
    """A quantized network.

    Attributes:
        model: the student on the CPU in eval mode, from normalised images to logits (B, classes).
        manifest: record of settings and measurements, as plain JSON values.
        samples: synthetic images. This and the next three are set only in the process of the run.
        teacher: the network that was quantized.
        diagnostics: diagnostics of the papers, if they were requested.
        analysis: cost of each quantizer, as plain JSON values.
        after_save: called with the folder when the result is complete.
    """

    model: Student
    manifest: dict[str, Any]
    samples: Samples | None = None
    teacher: nn.Module | None = None
    diagnostics: dict[str, Any] | None = None
    analysis: dict[str, Any] | None = None
    after_save: Callable[[Path], None] | None = None

    @property
    def input(self) -> InputSpec:
        """The input of the network."""
        return read_input(self.manifest, Path())

    def summary(self) -> dict[str, Any]:
        """The main figures, which the command line prints with ``--json``.

        Raises:
            ResultError: the manifest is damaged.
        """
        return read_summary(self.manifest, Path())

    def evaluate(self, data: str | Path, *, limit: int | None = None) -> Evaluation:
        """Accuracy on labelled images, and agreement with the teacher if it is available.

        Raises:
            DataError: the images cannot be read or do not fit the network.
        """
        images = open_images(data, self.input, limit=limit, boxes=self.boxes())
        return evaluate(self.model, images, teacher=self.teacher)

    def boxes(self) -> Boxes | None:
        """The function that converts outputs to boxes, if the network's file defines one.

        Raises:
            NetworkError: the file is missing or has changed.
        """
        origin = read_origin(self.manifest, Path())
        return boxes_of(origin.name, self.input, origin.source_sha256)

    def save(self, folder: str | Path) -> None:
        """Write the result folder. The manifest is last, so a folder with a manifest is complete.

        Raises:
            ResultError: the folder already contains a result, or cannot be written.
        """
        folder = Path(folder)
        claim_folder(folder)
        write_tensors(folder / STUDENT, encode(self.model), {"format": "dreamquant student 1"})
        files = [STUDENT]
        if self.samples is not None:
            s = self.samples
            save_samples(folder / SAMPLES, s.images, self.input, s.targets, s.confidence)
            files.append(SAMPLES)
        if self.diagnostics is not None:
            write_json(folder / DIAGNOSTICS, self.diagnostics)
            write_bytes(folder / DIAGNOSTICS_PICTURE, picture(self.diagnostics, self._title()))
            files += [DIAGNOSTICS, DIAGNOSTICS_PICTURE]
        if self.analysis is not None:
            write_json(folder / ANALYSIS, self.analysis | {"samples": self._tiles()})
            files.append(ANALYSIS)
        self.manifest["files"] = {
            name: {"sha256": sha256_file(folder / name), "bytes": (folder / name).stat().st_size}
            for name in files
        }
        write_json(folder / MANIFEST, self.manifest)
        self.conclude(folder)

    def conclude(self, folder: Path) -> None:
        """The steps after the manifest; they can be repeated if a run was stopped during them."""
        if self.after_save is not None:
            self.after_save(folder)
        # The run is finished, so its checkpoint is not needed any more.
        shutil.rmtree(folder / CHECKPOINT, ignore_errors=True)

    def _tiles(self) -> list[dict[str, Any]]:
        if self.samples is None:
            return []
        s = self.samples
        return encode_tiles(s.images, self.input, s.targets, s.confidence)

    def _title(self) -> str:
        method, protocol = self.manifest["method"], self.manifest["protocol"]
        return (
            f"Diagnostics of {method['name']} at {protocol['bits']}, "
            f"{self.manifest['timings']['iterations']} iterations, seed {protocol['seed']}"
        )
