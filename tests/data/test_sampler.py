"""The order of samples is a function of (seed, position)."""

from itertools import islice

import pytest

from vdm.data.sampler import ShuffledBatches, permute


@pytest.mark.parametrize("size", [1, 2, 3, 5, 64, 65, 1000])
def test_permutation_visits_every_item_once(size):
    assert sorted(permute(p, size, key=7) for p in range(size)) == list(range(size))


def test_keys_give_unrelated_orders():
    size = 500
    orders = [[permute(p, size, key) for p in range(size)] for key in (1, 2)]
    same = sum(a == b for a, b in zip(*orders, strict=True))
    fixed = sum(a == b for a, b in enumerate(orders[0]))
    assert same < 8
    assert fixed < 8  # one is expected of a random permutation


def test_order_is_pinned():
    assert [permute(p, 10, key=0) for p in range(10)] == PINNED


PINNED = [0, 2, 7, 4, 3, 9, 1, 6, 8, 5]


def test_every_pass_visits_every_item_once_in_its_own_order():
    batches = islice(ShuffledBatches(12, 4, seed=3), 9)
    keys = [key for batch in batches for key in batch]
    passes = [keys[:12], keys[12:24], keys[24:]]
    for number, one in enumerate(passes):
        assert sorted(one) == list(range(number * 12, number * 12 + 12))
    items = [[key % 12 for key in one] for one in passes]
    assert items[0] != items[1] != items[2]


def test_start_anywhere_equals_going_there():
    whole = list(islice(ShuffledBatches(10, 3, seed=1), 12))
    rest = list(islice(ShuffledBatches(10, 3, seed=1, start=lambda: 5), 7))
    assert rest == whole[5:]


def test_start_is_asked_when_iteration_begins():
    position = 0
    sampler = ShuffledBatches(10, 3, start=lambda: position)
    first = next(iter(sampler))
    position = 4
    assert next(iter(sampler)) == sampler.batch(4) != first


def test_ranks_share_one_sequence():
    whole = list(islice(ShuffledBatches(10, 6, seed=2), 4))
    parts = [islice(ShuffledBatches(10, 3, seed=2, rank=r, num_ranks=2), 4) for r in range(2)]
    assert [a + b for a, b in zip(*parts, strict=True)] == whole


def test_misuse_is_refused():
    with pytest.raises(ValueError, match="0 items"):
        ShuffledBatches(0, 3)
    with pytest.raises(ValueError, match="rank 2"):
        ShuffledBatches(5, 3, rank=2, num_ranks=2)
    with pytest.raises(ValueError, match="position 5"):
        permute(5, 5, 0)
