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
    """Where a run's random numbers come from.

    Attributes:
        asked: what images are to be, on the device. Apart from what terms draw, since that depends
            on how many images a process makes at once.
        random: other tensors, on the device.
        choice: choices, on the CPU, so that they do not wait for the device.
    """

    asked: torch.Generator
    random: torch.Generator
    choice: torch.Generator

    @classmethod
    def seeded(cls, seed: int, device: torch.device) -> Rng:
        """All three from one seed."""
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
