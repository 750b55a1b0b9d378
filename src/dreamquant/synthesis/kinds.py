"""Names of procedural kinds, for ``--images`` and ``dreamquant dream --method``."""

from __future__ import annotations

from dreamquant.synthesis.dead_leaves import DeadLeaves
from dreamquant.synthesis.fractals import Fractals
from dreamquant.synthesis.pink_noise import PinkNoise
from dreamquant.synthesis.procedural import Kind, WhiteNoise

KINDS: dict[str, Kind] = {
    "procedural": DeadLeaves(),  # the kind that gives the best students
    "dead-leaves": DeadLeaves(),
    "fractals": Fractals(),
    "pink-noise": PinkNoise(),
    "noise": WhiteNoise(),
}
