import numpy as np
import torch
from torch import nn

from dreamquant.networks.demo import (
    HELD_OUT,
    INPUT,
    TRANSFORMER_WEIGHTS,
    WEIGHTS,
    transformer_teacher,
)
from dreamquant.networks.demo.network import digits
from dreamquant.results.files import read_tensors


def trained():
    network = digits()
    network.load_state_dict(read_tensors(WEIGHTS)[0])
    return network.eval()


def held_out():
    with np.load(HELD_OUT) as arrays:
        return arrays["images"], arrays["labels"]


def test_held_out_images_are_bytes_of_every_class():
    images, labels = held_out()
    assert images.shape == (597, 8, 8, 1)
    assert images.dtype == labels.dtype == np.uint8
    assert images.min() == 0
    assert images.max() == 255
    assert np.bincount(labels).tolist() == [59, 60, 59, 61, 60, 60, 60, 60, 58, 60]


def test_network_reads_held_out_digits():
    images, labels = held_out()
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    with torch.inference_mode():
        logits = trained()((pixels - INPUT.mean[0]) / INPUT.std[0])
    assert logits.shape == (597, INPUT.num_classes)
    assert (logits.argmax(1).numpy() == labels).mean() >= 0.98


def test_transformer_reads_held_out_digits_and_is_small():
    images, labels = held_out()
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    with torch.inference_mode():
        logits = transformer_teacher().module((pixels - INPUT.mean[0]) / INPUT.std[0])
    assert (logits.argmax(1).numpy() == labels).mean() >= 0.97
    assert TRANSFORMER_WEIGHTS.stat().st_size < 300_000


def test_weights_are_finite_floats_below_a_megabyte():
    tensors, _ = read_tensors(WEIGHTS)
    floats = [tensor for tensor in tensors.values() if tensor.is_floating_point()]
    assert all(tensor.dtype == torch.float32 and tensor.isfinite().all() for tensor in floats)
    assert all((t > 0).all() for name, t in tensors.items() if name.endswith("running_var"))
    assert 100_000 <= sum(parameter.numel() for parameter in digits().parameters()) <= 300_000
    assert WEIGHTS.stat().st_size < 1_000_000


def test_each_activation_is_its_own_module():
    calls = []
    network = trained()
    for module in network.modules():
        if isinstance(module, nn.ReLU):
            module.register_forward_hook(lambda module, *_: calls.append(module))
    network(torch.zeros(1, *INPUT.shape))
    assert len(calls) == len(set(calls)) == 31
