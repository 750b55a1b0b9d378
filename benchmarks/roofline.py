"""Operations of an iteration, and what the hardware could compute in the same time."""

from __future__ import annotations

from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from dreamquant.training.devices import accelerator_for
from timed import Timed, now

SHOWN_OPERATIONS = 12


class FlopCount(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts by PyTorch's formulas; its own counter refuses gradients of leaves."""

    total = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run ``func`` and count it."""
        out = func(*args, **(kwargs or {}))
        if func._overloadpacket in flop_registry:
            self.total += flop_registry[func._overloadpacket](*args, **(kwargs or {}), out_val=out)
        return out


def flop(training: Timed) -> float:
    """Floating-point operations of one iteration."""
    with FlopCount() as count:  # type: ignore[no-untyped-call]
        training.step()
    return float(count.total)


def peak_flops(precision: str, device: str) -> float:
    """FLOP/s of a large matrix product, the best of several."""
    place = accelerator_for(device, precision).device
    kind = torch.float32 if precision == "32" else torch.bfloat16
    size = 8192 if place.type == "cuda" else 2048
    a, b = (torch.randn(size, size, device=place).to(kind) for _ in range(2))
    times = []
    for _ in range(8):
        start = now()
        a @ b
        times.append(now() - start)
    return 2 * size**3 / min(times)


def operations(training: Timed) -> list[dict[str, Any]]:
    """Where an iteration's time goes: operations and their part of it in percent, largest first."""
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        for _ in range(3):
            training.step()
    averages = recorded.key_averages()
    total = sum(event.self_cpu_time_total for event in averages)
    largest = sorted(averages, key=lambda event: -event.self_cpu_time_total)[:SHOWN_OPERATIONS]
    return [
        {"operation": event.key, "percent": 100 * event.self_cpu_time_total / total}
        for event in largest
    ]
