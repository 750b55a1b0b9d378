"""Train the demo's transformer; write its weights into ``dreamquant.networks.demo``.

Run ``python tools/train_digits_transformer.py`` with the extra ``train-demo`` installed: about two
minutes on one CPU thread. It learns from the same split as ``tools/train_digits.py``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from train_digits import accuracy, load_splits, shift, to_tensors

from dreamquant.networks.demo import TRANSFORMER_WEIGHTS
from dreamquant.networks.demo.transformer import digits
from dreamquant.results.files import write_tensors

SEED = 0
EPOCHS = 240
BATCH = 60
PEAK_RATE = 2e-3
WEIGHT_DECAY = 0.05
RISE = 0.1  # fraction of the steps in which the rate climbs


def train_network(images: Tensor, labels: Tensor) -> nn.Module:
    """Train on normalised images (N, 1, 8, 8) and labels (N,); return the network in eval mode."""
    torch.manual_seed(SEED)
    generator = torch.Generator().manual_seed(SEED)
    network = digits()
    steps = EPOCHS * (len(images) // BATCH)
    optimizer = torch.optim.AdamW(network.parameters(), PEAK_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, steps, pct_start=RISE)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(images), generator=generator).view(-1, BATCH):
            loss = F.cross_entropy(network(shift(images[batch], generator)), labels[batch])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
    return network.eval()


def main() -> None:
    """Train, print the held-out accuracy and write the weights."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    train, held_out = load_splits()
    network = train_network(*to_tensors(train))
    print(f"held-out accuracy {accuracy(network, *to_tensors(held_out)):.2%}")
    write_tensors(TRANSFORMER_WEIGHTS, network.state_dict(), metadata={})


if __name__ == "__main__":
    main()
