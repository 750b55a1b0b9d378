"""Quantize a network given in memory, look at the result, load it back."""

from pathlib import Path
from tempfile import TemporaryDirectory

import torch

import dreamquant
from dreamquant.networks import demo
from dreamquant.networks.checkpoints import load_weights
from dreamquant.networks.demo.network import digits


def main(iterations: int = 60) -> None:
    """Run the example."""
    teacher = digits()
    load_weights(teacher, demo.WEIGHTS)
    with TemporaryDirectory() as folder:
        out = Path(folder) / "digits-w3a3"
        result = dreamquant.quantize(
            teacher,
            bits="w3a3",
            method="adadfq",
            input=demo.INPUT,
            iterations=iterations,
            data=demo.HELD_OUT,
        )
        result.save(out)
        print(result.summary())
        print(result.evaluate(demo.HELD_OUT, limit=100))
        again = dreamquant.load(out, network=digits())
        images = torch.randn(4, *demo.INPUT.shape)
        assert torch.equal(again(images), result.model(images))


if __name__ == "__main__":
    main()
