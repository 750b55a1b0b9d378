"""Names of a scheme's choices, apart from it so that the command line need not load torch."""

from __future__ import annotations

from typing import Literal

Placement = Literal["relu-output", "layer-input", "operands"]
Ranges = Literal["ema", "learned"]
Gradient = Literal["straight-through", "clipped"]
Norms = Literal["kept", "re-estimated"]
Activations = Literal["all", "relu"]
Softmax = Literal["linear", "log2"]
WeightsRange = Literal["safe", "full"]
Granularity = Literal["tensor", "image-channel"]
Named = Literal["integer", "paper"]
