"""Names of procedural kinds, for ``--images`` and ``dreamquant dream --method``."""

from __future__ import annotations

from dreamquant.synthesis.dead_leaves import DeadLeaves
from dreamquant.synthesis.fractals import Fractals
from dreamquant.synthesis.pink_noise import PinkNoise
from dreamquant.synthesis.procedural import Kind, WhiteNoise
from dreamquant.synthesis.suited import Suited

KINDS: dict[str, Kind] = {
    "procedural": Suited(),
    "dead-leaves": DeadLeaves(),
    "fractals": Fractals(),
    "pink-noise": PinkNoise(),
    "noise": WhiteNoise(),
}
