"""Memory of one iteration: the most that tensors take at once, beside what has to be held."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dreamquant.training.loop import Training
from dreamquant.training.step import Step

Bytes = dict[int, int]  # of each storage, by its address


def measure(training: Training) -> dict[str, float]:
    """What an iteration needs, in MiB.

    Args:
        training: past both warm-ups, and at least one iteration old.

    Returns:
        ``held``: three networks and the optimizers' state; ``activations``: what one forward pass
        of each, on a whole batch, keeps for the way back; ``peak``: the most at once; and
        ``ratio``, the peak over the sum of the other two.
    """
    held = _bytes(tree_leaves(_state(training)))
    activations = sum(_saved(training, held).values())
    with Allocations() as allocated:
        training.step()
    kept = sum(held.values())
    peak = kept + allocated.peak
    return {
        "held": kept / 2**20,
        "activations": activations / 2**20,
        "peak": peak / 2**20,
        "ratio": peak / (kept + activations),
    }


def _state(training: Training) -> list[Any]:
    networks = (training.teacher.network, training.student, training.generator)
    tensors = [[*network.parameters(), *network.buffers()] for network in networks]
    optimizers = (training.student_optimizer, training.generator_optimizer)
    return [tensors, [optimizer.state_dict() for optimizer in optimizers]]


def _bytes(values: Iterable[Any]) -> Bytes:
    storages = [value.untyped_storage() for value in values if isinstance(value, Tensor)]
    return {storage.data_ptr(): storage.nbytes() for storage in storages}


def _saved(training: Training, held: Bytes) -> Bytes:
    """What the forward passes of all three networks keep, but for what is held anyway."""
    saved: list[Tensor] = []  # kept alive, so that no address comes twice

    def keep(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor), training.accelerator.autocast():
        batch = training.invent(training.ask(training.recipe.schedule.batch))
        step = Step(batch, training.teacher, training.student, training.chance, student_learns=True)
        _ = step.teacher.logits, step.student.logits
    return {address: size for address, size in _bytes(saved).items() if address not in held}


class Allocations(TorchDispatchMode):
    """Counts the bytes that operations inside make and that live at once.

    Attributes:
        peak: the most of them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._alive: dict[StorageWeakRef, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run ``func`` and count what it makes."""
        result = func(*args, **(kwargs or {}))
        given = _bytes(tree_leaves((args, kwargs)))
        made = [leaf.untyped_storage() for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        for storage in made:
            if storage.data_ptr() not in given:
                self._alive[StorageWeakRef(storage)] = storage.nbytes()
        self._alive = {ref: size for ref, size in self._alive.items() if not ref.expired()}
        self.peak = max(self.peak, sum(self._alive.values()))
        return result
