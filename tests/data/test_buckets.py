"""Batches hold one shape each, in an order that is a function of seed and number."""

from collections import Counter
from itertools import islice

import pytest

from vdm.data.buckets import BatchesInOrder, Bucket, BucketedBatches, choose_bucket

SHAPES = [Bucket(8, 32, 32), Bucket(8, 24, 40), Bucket(16, 32, 32), Bucket(4, 40, 24)]


@pytest.mark.parametrize(
    ("clip", "expected"),
    [
        ((20, 64, 64), 2),  # of two squares the longer
        ((9, 64, 64), 0),
        ((20, 60, 100), 1),
        ((5, 64, 64), 3),  # the only one that it is long enough for
        ((3, 64, 64), None),
    ],
)
def test_least_of_a_clip_is_lost(clip, expected):
    assert choose_bucket(SHAPES, *clip) == expected


def test_a_clip_is_not_enlarged_where_it_need_not_be():
    shapes = [Bucket(4, 64, 64), Bucket(4, 32, 32), Bucket(4, 48, 48)]
    assert [choose_bucket(shapes, 4, side, side) for side in (40, 48, 100)] == [1, 2, 0]


@pytest.fixture
def groups():
    numbers = iter(range(100))
    return [list(islice(numbers, count)) for count in (13, 5, 0, 30)]


def test_a_batch_is_out_of_one_group_and_all_are_seen_alike(groups):
    order = BucketedBatches(groups, 4, seed=3)
    place = {item: n for n, group in enumerate(groups) for item in group}
    seen = Counter()
    for number in range(20 * 12):
        items = [key % 48 for key in order.batch(number)]
        assert len({place[item] for item in items}) == 1
        seen.update(items)
    assert seen.keys() == place.keys()
    shares = [sum(seen[item] for item in group) / len(group) for group in groups if group]
    assert max(shares) < 1.35 * min(shares)  # a round has 3, 1 and 8 batches of 4


def test_no_item_comes_again_before_all_of_its_group_have_come_as_often(groups):
    order = BucketedBatches(groups, 4, seed=3)
    keys = [key for number in range(5 * 12) for key in order.batch(number)]
    assert len(set(keys)) == len(keys)
    seen = Counter(key % 48 for key in keys)
    for group in filter(None, groups):
        counts = [seen[item] for item in group]
        assert max(counts) - min(counts) <= 1
        epochs = Counter(key // 48 for key in keys if key % 48 in group)
        assert sorted(epochs) == list(range(max(counts)))


def test_it_can_begin_anywhere_and_seeds_differ(groups):
    order = BucketedBatches(groups, 4, seed=3, start=lambda: 17)
    assert next(iter(order)) == BucketedBatches(groups, 4, seed=3).batch(17)
    others = BucketedBatches(groups, 4, seed=4)
    assert [order.batch(k) for k in range(9)] != [others.batch(k) for k in range(9)]


def test_ranks_share_a_group_and_no_samples(groups):
    ranks = [BucketedBatches(groups, 2, seed=3, rank=r, num_ranks=3) for r in range(3)]
    seen = Counter()
    for number in range(16):
        batches = [rank.batch(number) for rank in ranks]
        keys = [key for batch in batches for key in batch]
        assert len(set(keys)) == 6
        seen.update(keys)
    assert max(seen.values()) == 1


def test_in_order_nothing_is_left_out(groups):
    batches = list(BatchesInOrder(groups, 4))
    assert [len(batch) for batch in batches] == [4, 4, 4, 1, 4, 1, *[4] * 7, 2]
    assert [item for batch in batches for item in batch] == list(range(48))


def test_nothing_to_choose_from_is_refused():
    with pytest.raises(ValueError, match="got no item in any group"):
        BucketedBatches([[], []], 2)
    with pytest.raises(ValueError, match="got bucket 0x32x32, expected at least 1 of everything"):
        Bucket(0, 32, 32)
