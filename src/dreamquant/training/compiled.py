"""Networks as compiled graphs: the forward pass, and each backward pass on its own.

``torch.compile`` takes the backward pass of a network in one piece: the gradients of its weights
come with those of its images, also where one of them alone is asked for. A step goes back through
the student twice, to its weights and to the images, so the passes are traced and parted here, and
compiled by PyTorch. Tracing runs the network's Python once: hooks, taps and quantizers are in the
graphs.

Importing this module imports PyTorch's compiler, which takes seconds: only who compiles does.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from dreamquant.training.tracing import Passes, trace


class Compiled:
    """A network that is trained, or trained through, at fixed sizes.

    Where no gradient is recorded it is called as it is.

    Args:
        network: called with tensors; returns one or a tuple of them. It must not choose what it
            does by their values.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        state: dict[str, Tensor] = {
            **dict(network.named_parameters()),
            **dict(network.named_buffers()),
        }
        self._names, self._state = list(state), list(state.values())
        self._passes: dict[Hashable, Passes] = {}

    def __call__(self, *inputs: Tensor) -> Any:
        """What the network returns, with a graph to its weights and inputs.

        Raises:
            TrainingError: the network cannot be traced, or its graphs not compiled.
        """
        if not torch.is_grad_enabled():
            return self.network(*inputs)
        casts = torch.is_autocast_enabled(inputs[0].device.type)
        forms = [(x.shape, x.stride(), x.dtype, x.requires_grad) for x in inputs]
        key = (self.network.training, casts, *forms)
        tensors = [*self._state, *inputs]
        if key not in self._passes:
            self._passes[key] = self._traced(tensors)
        outputs = self._passes[key](tensors)
        return outputs if len(outputs) > 1 else outputs[0]

    def _traced(self, tensors: list[Tensor]) -> Passes:
        device = tensors[-1].device.type
        autocast = torch.autocast(
            device,
            torch.get_autocast_dtype(device),
            torch.is_autocast_enabled(device),
            cache_enabled=False,  # it would keep what stands for a weight while tracing
        )
        with autocast:
            return trace(self._run, tensors)

    def _run(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        count = len(self._names)
        state = dict(zip(self._names, tensors[:count], strict=True))
        result = functional_call(self.network, state, tensors[count:])
        return (result,) if isinstance(result, Tensor) else tuple(result)
