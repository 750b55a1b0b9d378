"""Patches that are stopped while images are optimised."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dreamquant.errors import MethodError, NetworkError
from dreamquant.methods import METHODS, find_method
from dreamquant.networks.demo.transformer import Transformer
from dreamquant.networks.spec import InputSpec
from dreamquant.networks.token_sets import TokenSet
from dreamquant.synthesis.pixels import Pixels
from dreamquant.synthesis.token_stopping import Moved, Place, Tokens, TokenStopping, grid
from dreamquant.terms.classes import TeacherCrossEntropy
from dreamquant.terms.patch_similarity import PatchSimilarityEntropy
from stored_runs import advance, bytes_of, method_of, run_of

SPEC = InputSpec((3, 8, 8), (0.5,) * 3, (0.25,) * 3, 5)
STOPPING = TokenStopping(at=(0.2, 0.6), fraction=0.5)


def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        embed = nn.Conv2d(3, 8, 2, 2)
        return Transformer(embed, 16, 8, depth=2, heads=2, classes=5).eval().requires_grad_(False)


def run(**numbers):
    terms = (PatchSimilarityEntropy(), TeacherCrossEntropy())
    few = {"size": 4, "batch": 2, "steps": 5, "shift": 3, "flip": True, "stopping": STOPPING}
    method = method_of(Pixels(terms, **few | numbers), placement="operands")
    return run_of(method, network=network(), spec=SPEC, bits="w8a8")


def test_the_network_sees_fewer_tokens_with_each_stop():
    going, images = run()
    seen = []
    going.bench.teacher.blocks[0].register_forward_pre_hook(lambda _, x: seen.append(x[0].shape[1]))
    advance(going)
    # Of each batch a step, then attention among 16 patches, two steps of 8, and so on.
    assert seen == 2 * [17, 17, 9, 9, 9, 5, 5]
    assert images.images.shape == (4, 3, 8, 8)


def test_a_stopped_patch_gets_no_gradient():
    going, _ = run(size=2, steps=3, shift=0, flip=False)
    advance(going)
    phase = going.phase
    patches = phase.pixels.grad.abs().sum(1).unfold(1, 2, 2).unfold(2, 2, 2).sum((3, 4)).flatten(1)
    for row, kept in zip(patches, phase.tokens.kept, strict=True):
        assert row.nonzero().flatten().tolist() == kept.tolist()


def test_patches_are_followed_where_images_are_moved():
    place = Place(TokenSet("blocks", 1, 16), grid(16, (8, 8)), (8, 8))
    tokens = Tokens(STOPPING, place, network())
    tokens.kept = torch.tensor([[0, 7]])
    pixels = torch.zeros(8, 8)
    pixels[:2, :2] = pixels[2:4, 6:] = 1
    moved = pixels.roll((4, -2), (0, 1)).flip(1)
    wanted = moved[::2, ::2].flatten().nonzero().flatten()
    assert tokens.moved(Moved(4, -2, mirrored=True)).sort().values.tolist() == [wanted.tolist()]


def test_a_stopped_run_goes_on_with_the_same_patches():
    whole, wanted = run()
    advance(whole)
    first, _ = run()
    advance(first, 3)
    state = first.state_dict()
    second, images = run()
    second.load_state_dict(state)
    advance(second)
    assert bytes_of(images.images) == bytes_of(wanted.images)


def test_terms_that_need_every_patch_are_refused():
    with pytest.raises(MethodError, match="AttentionPriors, RegionCrossEntropy needs every patch"):
        find_method("sardfq+smi")
    with pytest.raises(MethodError, match="joins methods that optimise the pixels"):
        find_method("gdfq+smi")
    assert find_method("mimiq+smi").joined().images.stopping == TokenStopping()
    assert METHODS["smi"].name == "smi"


def test_patches_that_are_no_grid_cannot_be_followed():
    with pytest.raises(NetworkError, match="7 patches do not divide an image of 8 x 8"):
        grid(7, (8, 8))
