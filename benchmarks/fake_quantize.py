"""Why fake-quantization is written in elementwise passes: PyTorch's fused kernel beside ours.

    python benchmarks/fake_quantize.py

Prints milliseconds and their ratio for a ResNet-20 activation of batch 32, one thread, interleaved.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

from dreamquant.quantization.affine import fake_quantize, unsigned_grid

REPEATS = 50


def main() -> None:
    """Measure both, forward only, and print the ratio."""
    torch.set_num_threads(1)
    x = torch.randn(32, 16, 32, 32).relu()
    scale, zero_point, grid = (
        torch.tensor(0.3),
        torch.tensor(0, dtype=torch.int32),
        unsigned_grid(3),
    )

    def fused() -> torch.Tensor:
        return torch.fake_quantize_per_tensor_affine(x, scale, zero_point, grid.qmin, grid.qmax)

    def ours() -> torch.Tensor:
        return fake_quantize(x, scale, zero_point, grid, clipped_gradient=True)

    torch.testing.assert_close(fused(), ours())
    pairs = [(_milliseconds(fused), _milliseconds(ours)) for _ in range(REPEATS)]
    theirs, own = (statistics.median(times) for times in zip(*pairs, strict=True))
    print(f"fused kernel {theirs:.3f} ms, elementwise {own:.3f} ms, ratio {theirs / own:.1f}")


def _milliseconds(function: Callable[[], torch.Tensor]) -> float:
    start = time.perf_counter()
    function()
    return 1e3 * (time.perf_counter() - start)


if __name__ == "__main__":
    main()
