"""Memory of one iteration: the peak of all tensors, and what must be kept."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.profiler import ProfilerActivity, profile
from torch.utils._pytree import tree_leaves

from dreamquant.training.step import Step
from timed import Timed

Bytes = dict[int, int]  # of each storage, by its address


def measure(run: Timed) -> dict[str, float]:
    """What an iteration needs, in MiB.

    Args:
        run: at least one iteration in which both networks learn is done.

    Returns:
        ``held``: three networks and the optimizers' state; ``activations``: what one forward pass
        of each, on a whole batch, keeps for the backward pass; ``peak``: the most at once; and
        ``ratio``, the peak over the sum of the other two.
    """
    held = _bytes(tree_leaves(_state(run)))
    activations = sum(_saved(run, held).values())
    kept = sum(held.values())
    peak = kept + _most_made(run)
    return {
        "held": kept / 2**20,
        "activations": activations / 2**20,
        "peak": peak / 2**20,
        "ratio": peak / (kept + activations),
    }


def _state(run: Timed) -> list[Any]:
    networks = (run.bench.teacher, run.bench.student, run.images.network)
    tensors = [[*network.parameters(), *network.buffers()] for network in networks]
    optimizers = (run.learns.learner.optimizer, run.images.optimizer)
    return [tensors, [optimizer.state_dict() for optimizer in optimizers]]


def _bytes(values: Iterable[Any]) -> Bytes:
    storages = [value.untyped_storage() for value in values if isinstance(value, Tensor)]
    return {storage.data_ptr(): storage.nbytes() for storage in storages}


def _saved(run: Timed, held: Bytes) -> Bytes:
    """What the forward passes of all three networks keep, but for what is held anyway."""
    saved: list[Tensor] = []  # kept alive, so that no address comes twice

    def keep(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    bench = run.bench
    with saved_tensors_hooks(keep, lambda tensor: tensor), bench.autocast():
        batch = run.images.batch(run.learns.recovery.batch)
        step = Step(batch, bench.players, bench.rng, student_learns=True, compiled=False)
        _ = step.teacher.output, step.student.output
    return {address: size for address, size in _bytes(saved).items() if address not in held}


def _most_made(run: Timed) -> int:
    """Bytes that an iteration makes and that live at once, by the allocator's own record."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        run.step()
    found = recorded.profiler.kineto_results.events()
    events = sorted((e for e in found if e.name() == "[memory]"), key=lambda e: e.start_ns())
    return max(itertools.accumulate(int(event.nbytes()) for event in events))
