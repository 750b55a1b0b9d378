"""Pools: stored images are drawn evenly, and reading does not change them."""

from collections import Counter

import pytest
import torch

from dreamquant.recovery.stepwise import drawn
from dreamquant.synthesis.drawn import Procedural
from dreamquant.synthesis.pool import Pool
from dreamquant.synthesis.probe import COUNT, ProbeImages
from dreamquant.synthesis.procedural import WhiteNoise
from stored_runs import SPEC, advance, bench_of, bytes_of, images_of, method_of, run_of


@pytest.fixture
def bench():
    return bench_of(method_of(None))


@pytest.fixture
def pool(bench):
    kept = Pool(bench, 10)
    kept.add(images_of(4, 1), torch.tensor([0, 1, 2, 2]))
    kept.add(images_of(6, 2), torch.tensor([1, 1, 0, 2, 3, 3]))
    return kept


def test_a_pool_is_ready_once_it_holds_an_image(bench):
    pool = Pool(bench, 2)
    assert not pool.ready
    pool.add(images_of(1), torch.tensor([0]))
    assert pool.ready


def test_images_keep_their_targets(pool):
    batch = pool.batch(7)
    for image, target, row in zip(batch.images, batch.targets, batch.latent, strict=True):
        assert image.equal(pool.images[row])
        assert target == pool.targets[row]


@pytest.mark.parametrize("size", [1, 3, 4, 10, 13])
def test_every_image_counts_alike_however_large_a_batch_is(pool, size):
    drawn = Counter()
    batches = 40
    for _ in range(batches):
        drawn.update(pool.batch(size).latent.tolist())
    least = size * batches // 10
    assert set(drawn.values()) <= {least, least + 1}


def test_a_pass_through_the_pool_is_in_another_order_than_the_one_before(pool):
    one, other = (pool.batch(10).latent.tolist() for _ in range(2))
    assert sorted(one) == sorted(other) == list(range(10))
    assert one != other


def test_targets_that_are_asked_for_are_given(pool, bench):
    asked = torch.tensor([3, 0, 2, 1, 3, 3, 1])
    drawn = [pool.make(pool.ask(7, bench.rng.asked, asked)) for _ in range(30)]
    assert all(batch.targets.equal(asked) for batch in drawn)
    # Each image of a target comes up.
    assert {int(row) for batch in drawn for row in batch.latent} == set(range(10))


def test_a_target_that_no_image_has_gets_any_of_them(pool, bench):
    batch = pool.make(pool.ask(200, bench.rng.asked, torch.full((200,), 4)))
    assert len(set(batch.latent.tolist())) == 10


def test_soft_targets_are_found_by_their_largest_class(bench):
    pool = Pool(bench, 3)
    soft = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.2, 0.3, 0.5]])
    pool.add(images_of(3), soft)
    batch = pool.make(pool.ask(3, bench.rng.asked, torch.tensor([2, 0, 1])))
    assert batch.latent.tolist() == [2, 0, 1]
    assert batch.targets.equal(soft[[2, 0, 1]])
    assert pool.make(pool.ask(3, bench.rng.asked, soft)).latent.tolist() == [0, 1, 2]


def test_who_draws_by_its_own_random_numbers_changes_nothing_of_the_run(pool):
    before = bytes_of({**pool.state_dict(), "rng": pool.bench.rng.state_dict()})
    seen = pool.batch(5, torch.Generator().manual_seed(3)).latent
    assert bytes_of({**pool.state_dict(), "rng": pool.bench.rng.state_dict()}) == before
    assert seen.equal(pool.batch(5, torch.Generator().manual_seed(3)).latent)


def test_a_pool_goes_on_from_its_state_in_the_middle_of_a_pass(pool):
    pool.batch(3)
    state, rng = pool.state_dict(), pool.bench.rng.state_dict()
    wanted = [pool.batch(4).latent.tolist() for _ in range(5)]
    other = Pool(bench_of(method_of(None), seed=9), 10)
    other.load_state_dict(state)
    other.bench.rng.load_state_dict(rng)
    assert [other.batch(4).latent.tolist() for _ in range(5)] == wanted
    assert other.images.equal(pool.images)


def test_micro_batches_are_parts_of_one_batch(pool):
    state, rng = pool.state_dict(), pool.bench.rng.state_dict()
    whole = pool.batch(8).latent.tolist()
    pool.load_state_dict(state)
    pool.bench.rng.load_state_dict(rng)
    pool.bench.accumulate = 4
    parts = [batch.latent.tolist() for batch in pool.parts(8)]
    assert [len(part) for part in parts] == [2, 2, 2, 2]
    assert [row for part in parts for row in part] == whole


def test_nothing_of_a_pool_learns(pool):
    assert list(pool.parameters) == []
    assert not pool.asks_student
    assert dict(pool.networks()) == {}


# ------------------------------------------------------------------- procedural sources


@pytest.mark.parametrize("size", [1, 64, 70])
def test_procedural_images_are_drawn_once_with_what_the_teacher_sees_as_targets(size):
    run, images = run_of(method_of(Procedural(size=size, kind=WhiteNoise())))
    assert not images.ready
    advance(run)
    assert run.ended == [("drawing procedural images", -(-size // 64))]
    assert images.images.shape == (size, *SPEC.shape)
    with torch.no_grad():
        assert images.targets.equal(run.bench.teacher(images.images).argmax(1))


def test_procedural_images_cannot_be_stretched():
    source = Procedural(size=5)
    assert source.iterations == 0
    assert source.stretched(3.0) == source


def test_half_a_pool_of_procedural_images_goes_on_as_the_whole_would():
    method = method_of(Procedural(size=150, kind=WhiteNoise()))
    whole, images = run_of(method)
    advance(whole)
    first, _ = run_of(method)
    advance(first, 1)
    second, resumed = run_of(method, seed=9)
    second.load_state_dict(first.state_dict())
    advance(second)
    assert resumed.images.equal(images.images)
    assert resumed.targets.equal(images.targets)


# ---------------------------------------------------------------------------- probe set


def test_the_probe_set_is_the_same_for_every_seed_method_and_size_of_batch():
    one, other = (ProbeImages(bench_of(method_of(None), seed=seed)) for seed in (0, 5))
    whole = torch.cat([one.batch(20).images for _ in range(2)])
    parts = torch.cat([other.batch(size).images for size in (3, 7, 8, 13, 9)])
    assert whole.equal(parts)


def test_probe_images_differ_and_are_answered_by_the_teacher(bench):
    batch = ProbeImages(bench).batch(24)
    with torch.no_grad():
        assert batch.targets.equal(bench.teacher(batch.images).argmax(1))
    flat = batch.images.flatten(1)
    assert ((flat[:, None] - flat).abs().amax(2) + torch.eye(24) > 1e-3).all()


def test_the_probe_set_begins_anew_after_its_last_image(bench):
    probe = ProbeImages(bench)
    first = probe.batch(8).images
    for _ in range(COUNT // 8 - 1):
        request = probe.ask(8, bench.rng.asked)
    assert request.latent.tolist() == list(range(COUNT - 8, COUNT))
    assert probe.batch(8).images.equal(first)


def test_drawing_probe_images_takes_no_random_numbers_of_the_run(bench):
    before = bytes_of(bench.rng.state_dict())
    ProbeImages(bench).batch(8)
    assert bytes_of(bench.rng.state_dict()) == before


def test_what_is_taken_is_gone_and_the_pool_takes_more():
    pool = Pool(bench_of(method_of(None)), 6)
    pool.add(images_of(4), torch.arange(4))
    images, targets = pool.take()
    assert (len(images), targets.tolist(), pool.ready) == (4, [0, 1, 2, 3], False)
    pool.add(images_of(2), torch.tensor([7, 8]))
    assert pool.targets.tolist() == [7, 8]
    assert pool.read(torch.tensor([1])).equal(images_of(2)[1:])


def test_closed_forms_draw_no_more_images_than_are_kept():
    bench = bench_of(method_of(None))
    pool = Pool(bench, 5)
    pool.add(images_of(5), torch.arange(5))
    drawn_batches = drawn(bench, pool, count=12, batch=4, part="Calibrate")
    assert [len(batch) for batch in drawn_batches] == [4, 1]
