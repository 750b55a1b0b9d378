"""A cell of a record: one run of ``quantize``, with what its pages tell."""

from __future__ import annotations

import os
import time
from typing import Any

import torch

from dreamquant import Method, Network, quantize
from dreamquant.results.storage import storage_of
from pages import cpu_seconds


def measured(network: Network, bits: str, method: str | Method, **options: Any) -> dict[str, Any]:
    """Quantize on the CPU: accuracies, seconds with measuring, bytes, protocol, machine, load.

    Args:
        network: the network.
        bits: as ``--bits`` takes them.
        method: name of a method, or one that is not in the registry.
        options: of :func:`~dreamquant.quantize`.
    """
    started, cpu = time.monotonic(), cpu_seconds()
    result = quantize(network, bits, method, device="cpu", quiet=True, **options)
    told = ("accuracy", "agreement", "phases", "protocol", "hardware", "versions")
    return {
        "bits": bits,
        "seconds": time.monotonic() - started,
        "cpu_seconds": cpu_seconds() - cpu,
        "bytes": storage_of(result.manifest["coverage"]).small,
        **{name: result.manifest[name] for name in told},
        "load": os.getloadavg()[0],
        "threads": torch.get_num_threads(),
    }
