"""SMI as an add-on: patches that attention reads least are stopped, so that steps are quicker."""

from __future__ import annotations

from dreamquant.methods.method import AddOn, Paper
from dreamquant.synthesis.token_stopping import TokenStopping

smi = AddOn(
    name="smi",
    summary="for transformers: patches of low attention are stopped; each step is quicker",
    paper=Paper(
        title="Sparse Model Inversion: Efficient Inversion of Vision Transformers for Data-Free "
        "Applications",
        venue="ICML 2024",
        authors="Hu et al.",
        confirmed="from the released code: the class token's attention in the last layer, mean "
        "over heads; 30 % of the remaining patches are stopped after 50, 100, 200 and 300 steps; "
        "shifted images are followed in whole patches",
        ours="times are fractions of 1000 steps; without a class token, the mean attention over "
        "queries; stopped patches stay as they are, where the code sets them to zero; on its own "
        "it stands on PSAQ-ViT's images, the paper's on DeepInversion's",
    ),
    stopping=TokenStopping(),
)
