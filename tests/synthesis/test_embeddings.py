"""Qimera's superposed embeddings, compared with sums over classes."""

from __future__ import annotations

import pytest
import torch

from dreamquant.errors import NetworkError
from dreamquant.methods import find_method
from dreamquant.networks.classifier_input import classifier_weight
from dreamquant.synthesis.class_mixtures import Superposition
from dreamquant.synthesis.embeddings import PlusNoise, Superposed
from dreamquant.synthesis.generator_networks import ImageNetGenerator
from tiny_runs import CLASSES, short_method, tiny_network, tiny_run

SHAPE = (5, 12)  # classes, features


def rows(count, seed=0):
    return torch.randn(count, SHAPE[1], generator=torch.Generator().manual_seed(seed)).double()


def normalised(vector):
    apart = vector - vector.mean()
    return apart / (apart.square().mean() + 1e-5).sqrt()


def test_soft_targets_superpose_normalised_sums() -> None:
    start, noise = rows(SHAPE[0]), rows(3, seed=1)
    targets = torch.rand(3, SHAPE[0], generator=torch.Generator().manual_seed(2)).double()
    made = PlusNoise(start)(noise, targets)
    for b in range(3):
        wanted = sum(targets[b, c] * normalised(start[c] + noise[b]) for c in range(SHAPE[0]))
        torch.testing.assert_close(made[b], wanted)


def test_a_label_is_its_one_hot_target() -> None:
    embedding, noise = PlusNoise(rows(SHAPE[0])), rows(4, seed=1)
    labels = torch.tensor([0, 3, 3, 4])
    hot = torch.nn.functional.one_hot(labels, SHAPE[0]).double()
    torch.testing.assert_close(embedding(noise, labels), embedding(noise, hot))


def test_batches_are_superposed_as_often_as_asked() -> None:
    random = torch.Generator().manual_seed(0)
    asked = Superposition(probability=0.4, count=3)
    superposed = 0
    for _ in range(300):
        targets = asked.sample(8, 6, random)
        torch.testing.assert_close(targets.sum(1), torch.ones(8))
        assert (targets > 0).sum(1).max() <= 3
        hot = targets.amax(1) > 1 - 1e-6
        superposed += not hot.all()
    assert 80 < superposed < 160


def test_embeddings_start_from_the_teachers_last_layer() -> None:
    method = short_method("qimera", images={"embedding": Superposed("classifier")})
    run = tiny_run(method)
    weight = classifier_weight(run.teacher, run.bench.example(), CLASSES)
    assert len(weight) == CLASSES
    assert run.generator.embedding.weight.equal(weight)
    assert run.images.latent == weight.shape[1]
    run.step()
    assert not run.generator.embedding.weight.equal(weight)  # and then it learns


def test_a_last_layer_without_a_row_for_each_class_is_refused() -> None:
    network = tiny_network()
    network.append(torch.nn.Unflatten(1, (CLASSES, 1)))
    network.append(torch.nn.Conv1d(CLASSES, 2 * CLASSES, 1))
    network.append(torch.nn.Flatten())
    method = short_method("qimera", images={"embedding": Superposed("classifier")})
    with pytest.raises(
        NetworkError,
        match=f"has {2 * CLASSES} rows, and the method needs one for each of {CLASSES} classes",
    ):
        tiny_run(method, network=network)
    tiny_run(short_method("qimera"), network=network)  # the remedy


def test_qimera_has_the_numbers_of_its_scripts() -> None:
    small = find_method("qimera").resolved("paper", (3, 32, 32))
    assert small.images.targets == Superposition(0.4, 2)
    assert (small.images.latent, small.images.batch) == (64, 200)
    cifar100 = find_method("qimera").resolved("paper-cifar100", (3, 32, 32))
    assert cifar100.images.targets == Superposition(0.4, 10)
    assert cifar100.images.embedding == Superposed("classifier")
    large = find_method("qimera").with_numbers(find_method("qimera").presets["paper-imagenet"])
    assert (large.images.targets, large.images.latent) == (Superposition(0.4, 500), 512)


def test_labels_reach_large_images_too() -> None:
    embedding = PlusNoise(torch.randn(CLASSES, 64))
    made = ImageNetGenerator((3, 9, 9), CLASSES, 64, embedding=embedding)
    noise = torch.randn(2, 64)
    first, other = (made(noise, torch.full((2,), label)) for label in (0, 1))
    assert not torch.allclose(first, other, atol=1e-3)
