"""SGD and Adam as ``torch.optim`` has them, to the bit, without the compiler that comes with it.

Making an optimizer of ``torch.optim`` imports ``torch._dynamo``, sympy and triton: three seconds
and 150 MiB for nothing that is used here. The functions below its classes do not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.adam import adam
from torch.optim.sgd import sgd


class NesterovSGD:
    """Stochastic gradient descent with Nesterov momentum and weight decay.

    Args:
        parameters: to train; those without a gradient stay as they are.
        momentum: of the running gradient.
        weight_decay: added to the gradient, times the parameter.
    """

    def __init__(
        self, parameters: Sequence[Tensor], *, momentum: float, weight_decay: float
    ) -> None:
        self.parameters = list(parameters)
        self.momentum, self.weight_decay = momentum, weight_decay
        self._running: dict[int, Tensor] = {}

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Descend by one step at a learning rate."""
        learning = {i: p for i, p in enumerate(self.parameters) if p.grad is not None}
        running = [self._running.get(i) for i in learning]
        sgd(
            list(learning.values()),
            _gradients(learning.values()),
            running,
            lr=rate,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            dampening=0.0,
            nesterov=True,
            maximize=False,
        )
        self._running.update(zip(learning, running, strict=True))

    def state_dict(self) -> dict[str, Any]:
        """What a later process needs to go on."""
        return {"running": self._running}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a state from :meth:`state_dict`."""
        self._running = {i: t.to(self.parameters[i].device) for i, t in state["running"].items()}
