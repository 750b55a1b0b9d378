"""SGD and Adam as ``torch.optim`` has them, without the compiler that comes along.

Making an optimizer of ``torch.optim`` imports ``torch._dynamo``, sympy and triton: three seconds
and 150 MiB for nothing that is used here. The functions that its classes call do not. Of these, the
fused ones: one pass over each parameter and what goes with it, where the plain ones take one an
operation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.optim.adam import adam
from torch.optim.sgd import sgd


class NesterovSGD:
    """Stochastic gradient descent with Nesterov momentum and weight decay.

    Args:
        parameters: to train; while one has no gradient, it stays as it is.
        momentum: of the running gradient.
        weight_decay: added to the gradient, times the parameter.

    Attributes:
        rate: of the latest step.
    """

    def __init__(
        self, parameters: Sequence[Tensor], *, momentum: float, weight_decay: float
    ) -> None:
        self.parameters, self.rate = list(parameters), 0.0
        self.momentum, self.weight_decay = momentum, weight_decay
        self._running = [torch.zeros_like(p) for p in self.parameters]

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Descend once, at a learning rate."""
        self.rate = rate
        parameters, running = _learning(self.parameters, self._running)
        sgd(
            parameters,
            _gradients(parameters),
            [*running],
            fused=True,
            lr=rate,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            dampening=0.0,
            nesterov=True,
            maximize=False,
        )

    def state_dict(self) -> dict[str, list[Tensor]]:
        """All that a later process needs to go on."""
        return {"running": self._running}

    def load_state_dict(self, state: Mapping[str, list[Tensor]]) -> None:
        """Take over a state from :meth:`state_dict`."""
        _take_over(self.state_dict(), state)


class Adam:
    """Adam (Kingma and Ba, ICLR 2015).

    Args:
        parameters: to train; while one has no gradient, it stays as it is.
        betas: of the running gradient and of its running square.

    Attributes:
        rate: of the latest step.
    """

    def __init__(self, parameters: Sequence[Tensor], *, betas: tuple[float, float]) -> None:
        self.parameters, self.betas, self.rate = list(parameters), betas, 0.0
        self._running = [torch.zeros_like(p) for p in self.parameters]
        self._squares = [torch.zeros_like(p) for p in self.parameters]
        self._steps = [
            torch.zeros((), dtype=torch.float32, device=p.device) for p in self.parameters
        ]

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Descend once, at a learning rate."""
        self.rate = rate
        beta1, beta2 = self.betas
        parameters, running, squares, steps = _learning(
            self.parameters, self._running, self._squares, self._steps
        )
        adam(
            parameters,
            _gradients(parameters),
            running,
            squares,
            [],
            steps,
            fused=True,
            lr=rate,
            beta1=beta1,
            beta2=beta2,
            eps=1e-8,
            weight_decay=0.0,
            amsgrad=False,
            maximize=False,
        )

    def state_dict(self) -> dict[str, list[Tensor]]:
        """All that a later process needs to go on."""
        return {"running": self._running, "squares": self._squares, "steps": self._steps}

    def load_state_dict(self, state: Mapping[str, list[Tensor]]) -> None:
        """Take over a state from :meth:`state_dict`."""
        _take_over(self.state_dict(), state)


def _take_over(own: Mapping[str, list[Tensor]], saved: Mapping[str, list[Tensor]]) -> None:
    for name, tensors in own.items():
        for tensor, value in zip(tensors, saved[name], strict=True):
            tensor.copy_(value)


def _learning(parameters: Sequence[Tensor], *kept: Sequence[Tensor]) -> list[list[Tensor]]:
    """The parameters that have a gradient, and what is kept for each of them."""
    learning = [i for i, parameter in enumerate(parameters) if parameter.grad is not None]
    return [[tensors[i] for i in learning] for tensors in (parameters, *kept)]


def _gradients(parameters: Sequence[Tensor]) -> list[Tensor]:
    return [_laid_out_like(p, p.grad) for p in parameters if p.grad is not None]


def _laid_out_like(parameter: Tensor, gradient: Tensor) -> Tensor:
    # Fused kernels pair what lies at the same place in memory, and convolutions' gradients come
    # channels last.
    if gradient.stride() == parameter.stride():
        return gradient
    return torch.empty_like(parameter).copy_(gradient)
