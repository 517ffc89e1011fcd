"""What a sample draws depends on its position alone."""

import torch

from vdm.training.draws import noise_like, spread_uniforms, uniforms


def test_noise_does_not_depend_on_the_batch():
    x = torch.zeros(5, 2, 3, 4, 6)
    whole = noise_like(x, 7, "eps", keys=range(10, 15))
    alone = noise_like(x[:1], 7, "eps", keys=[12])
    assert torch.equal(whole[2:3], alone)
    assert not torch.equal(whole[0], whole[1])


def test_noise_differs_between_seeds_and_purposes():
    x = torch.zeros(1, 2, 3)
    draws = [noise_like(x, seed, name, keys=[0]) for seed in (0, 1) for name in ("eps", "other")]
    assert all(not torch.equal(a, b) for i, a in enumerate(draws) for b in draws[:i])


def test_uniform_numbers_do_not_depend_on_the_batch():
    whole = uniforms(3, 7, "u", keys=range(4))
    assert whole.shape == (4, 3)
    assert torch.equal(whole[2:3], uniforms(3, 7, "u", keys=[2]))
    assert ((whole >= 0) & (whole < 1)).all()


def test_draws_are_the_same_whatever_the_default_device():
    x = torch.zeros(2, 3, 4)

    def draw():
        return (
            noise_like(x, 7, "eps", keys=[0, 1]),
            uniforms(3, 7, "u", keys=[0, 1]),
            spread_uniforms(7, "t", keys=[0, 1]),
        )

    expected = draw()
    with torch.device("meta"):
        got = draw()
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


def test_any_run_of_keys_spreads_its_uniform_numbers_evenly():
    for start in (0, 1000, 123456789):
        u = spread_uniforms(3, "t", keys=range(start, start + 32)).sort().values
        gaps = torch.cat([u[1:] - u[:-1], u[:1] + 1 - u[-1:]])
        assert gaps.max() < 2.7 / 32
        assert gaps.min() > 0.3 / 32
    assert not torch.equal(spread_uniforms(3, "t", keys=[5]), spread_uniforms(4, "t", keys=[5]))
    assert torch.equal(spread_uniforms(3, "t", keys=[8, 9])[1:], spread_uniforms(3, "t", keys=[9]))
