import numpy as np

from vdm.world.philox import Words


def test_words_are_these_on_every_machine():
    assert [int(word) for word in Words("train", 3, 17).raw(3)] == [
        9568222710809211795,
        7806072939147907524,
        11636436189415623307,
    ]


def test_one_at_a_time_gives_the_words_of_one_block():
    single, block = Words("x", 1), Words("x", 1)
    expected = (block.raw(5) >> np.uint64(11)) * 2.0**-53
    assert [single.uniform() for _ in range(5)] == expected.tolist()


def test_integers_are_words_modulo():
    single, block = Words("x", 2), Words("x", 2)
    assert [single.below(7) for _ in range(6)] == [int(word) % 7 for word in block.raw(6)]


def test_choice_takes_the_option_at_that_integer():
    options = ("p", "q", "r", "s", "t")
    assert Words("x", 3).choice(options) == options[Words("x", 3).below(5)]


def test_uniforms_fill_their_interval():
    values = Words("x", 4).uniforms(4000) * 3 - 2
    assert -2 <= values.min() < -1.99
    assert 0.99 < values.max() < 1
    assert abs(values.mean() + 0.5) < 0.05
    assert -2 <= Words("x", 4).uniform(-2, 1) < 1


def test_paths_that_read_alike_are_not_alike():
    firsts = {
        int(Words(*path).raw(1)[0])
        for path in [("train", 1, 2), ("train", 12), ("train", 2, 1), ("val", 1, 2), (1, 2), (2, 1)]
    }
    assert len(firsts) == 6
