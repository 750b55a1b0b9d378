"""The random generators of a run, all from one seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

# PyTorch's generator on the CPU takes the lowest 32 bits of a seed, so these must differ in them.
_SEEDS, _APART = 2**32, 0x9E3779B9


@dataclass(frozen=True)
class Rng:
    """The random generators of a run.

    Attributes:
        asked: draws targets and noise of images, on the device. It is separate from the others,
            because terms draw as often as there are micro-batches.
        random: draws other tensors, on the device.
        choice: draws choices, on the CPU, so that they do not wait for the device.
    """

    asked: torch.Generator
    random: torch.Generator
    choice: torch.Generator

    @classmethod
    def seeded(cls, seed: int, device: torch.device) -> Rng:
        """All three generators from one seed."""
        return cls(
            torch.Generator(device).manual_seed(seed),
            torch.Generator(device).manual_seed((seed + _APART) % _SEEDS),
            torch.Generator().manual_seed((seed + 2 * _APART) % _SEEDS),
        )

    def state_dict(self) -> dict[str, Tensor]:
        """The state of each of them."""
        return {name: generator.get_state() for name, generator in vars(self).items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from there."""
        for name, generator in vars(self).items():
            generator.set_state(state[name].cpu())
