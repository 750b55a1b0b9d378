"""Procedural kinds by name, as ``--images`` and ``dreamquant dream --method`` take them."""

from __future__ import annotations

from dreamquant.synthesis.dead_leaves import DeadLeaves
from dreamquant.synthesis.fractals import Fractals
from dreamquant.synthesis.pink_noise import PinkNoise
from dreamquant.synthesis.procedural import Kind, WhiteNoise

KINDS: dict[str, Kind] = {
    "procedural": DeadLeaves(),  # the kind that serves best
    "dead-leaves": DeadLeaves(),
    "fractals": Fractals(),
    "pink-noise": PinkNoise(),
    "noise": WhiteNoise(),
}
