"""What every run does again, done once for the runs of one process."""

from __future__ import annotations

import contextlib
import functools
import importlib
from collections.abc import Iterator

import pytest

from dreamquant.synthesis import probe


@contextlib.contextmanager
def probe_images_drawn_once() -> Iterator[None]:
    """Probe images are the same in all runs: those of a network's input are drawn once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probe, "drawn", functools.cache(probe.drawn))
        yield


@contextlib.contextmanager
def operators_of_onnx_read_once() -> Iterator[None]:
    """PyTorch parses the source of 500 functions in every export: half of a small one's time."""
    with pytest.MonkeyPatch.context() as patch:
        # Internal names: where PyTorch has others, exports are only slower.
        with contextlib.suppress(ImportError, AttributeError):
            found = importlib.import_module("torch.onnx._internal.exporter._registration")
            read = functools.cache(found.ONNXRegistry.from_torchlib)
            patch.setattr(found.ONNXRegistry, "from_torchlib", staticmethod(read))
        yield
