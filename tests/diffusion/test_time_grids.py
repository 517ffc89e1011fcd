import math

import pytest
import torch
from all_schedules import SCHEDULES

from vdm.diffusion import time_grids
from vdm.diffusion.schedules import EDM, LinearPath

GRIDS = {
    "uniform": time_grids.uniform,
    "shifted": lambda n: time_grids.shifted(n, 3.0),
    "fitted": lambda n: time_grids.fitted(n, 3000),
    "linear-quadratic": time_grids.linear_quadratic,
    "flow entries": lambda n: time_grids.flow_entries(n, 3.0),
    "karras": lambda n: time_grids.karras(n, EDM()),
    "leading": time_grids.leading,
    "trailing": time_grids.trailing,
    "linspace": time_grids.linspace,
    "lcm": time_grids.lcm,
}


def steps_of(grid):
    """The table entries that a grid visits."""
    return [round(float(t) * 1000) - 1 for t in grid[:-1]]


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("num_steps", [1, 2, 7, 25])
def test_grids_decrease_to_clean_data(name, num_steps):
    grid = GRIDS[name](num_steps)
    assert grid.shape == (num_steps + 1,)
    assert grid.dtype == torch.float64
    assert bool((grid.diff() < 0).all())
    assert grid[0] <= 1
    assert grid[-1] == 0


def test_uniform_steps_are_equal():
    assert time_grids.uniform(4).tolist() == [1, 0.75, 0.5, 0.25, 0]
    assert time_grids.uniform(2, 0.8, 0.4).tolist() == pytest.approx([0.8, 0.6, 0.4])


def test_shifted_times_are_those_of_published_flow_models():
    grid = time_grids.shifted(50, 7.0)
    assert grid[:3].tolist() == pytest.approx([1.0, 0.99709302, 0.99408287], abs=5e-8)
    assert grid[-2:].tolist() == pytest.approx([0.125, 0])


def test_steps_are_small_at_first_and_grow_without_a_bend():
    grid = time_grids.linear_quadratic(50, threshold=0.1)
    assert float(grid[25]) == pytest.approx(0.9)
    steps = -grid.diff()
    assert torch.allclose(steps[:25], steps[:1].expand(25))
    growth = steps[25:].diff()
    assert torch.allclose(growth, growth[:1].expand(24))
    assert float(steps[25] - steps[24]) == pytest.approx(float(growth[0]) / 2)


def test_long_clips_are_shifted_further():
    sizes = {"base_shift": 0.95, "max_shift": 2.05, "base_latents": 1024, "max_latents": 4096}
    for num_latents, shift in ((1024, 0.95), (2560, 1.5), (4096, 2.05)):
        grid = time_grids.fitted(7, num_latents, **sizes)
        torch.testing.assert_close(grid, time_grids.shifted(7, math.exp(shift)))
    stretched = time_grids.fitted(7, 2560, **sizes, terminal=0.1)
    assert stretched[[0, -2, -1]].tolist() == pytest.approx([1, 0.1, 0])
    free = time_grids.fitted(7, 2560, **sizes)[:-1]
    ratio = (1 - stretched[1:-1]) / (1 - free[1:])
    torch.testing.assert_close(ratio, ratio[:1].expand(6))
    with pytest.raises(ValueError, match=r"got terminal=0\.1 and num_steps=1"):
        time_grids.fitted(1, 2560, terminal=0.1)


def test_larger_clips_see_more_noise():
    # By hand: sqrt(15 * 240 * 424) / 512 = 2.4130 and 2.4130 * 29 / (30 + 1.4130 * 29).
    grid = time_grids.shifted_by_size(30, (15, 240, 424))
    assert float(grid[1]) == pytest.approx(0.985911, abs=2e-6)
    same = time_grids.shifted_by_size(4, (1, 512, 512))
    assert same.tolist() == time_grids.uniform(4).tolist()
    halved = time_grids.shifted_by_size(4, (1, 256, 512), base_size=256 * 512)
    assert halved.tolist() == same.tolist()


def test_karras_noise_levels_are_those_of_svd():
    schedule = EDM(700.0)
    sigma = schedule.edm_sigma(time_grids.karras(25, schedule, 0.002, 700.0))
    assert sigma[:3].tolist() == pytest.approx([700.0, 545.72925, 421.56912], rel=1e-6)
    assert sigma[12].item() == pytest.approx(15.589968, rel=1e-6)
    assert sigma[-3:].tolist() == pytest.approx([0.0078824954, 0.002, 0], rel=1e-6)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_karras_noise_levels_are_met_on_every_schedule(schedule):
    grid = time_grids.karras(9, schedule, 0.01, 10.0)
    sigma = schedule.edm_sigma(grid)
    expected = torch.linspace(10 ** (1 / 7), 0.01 ** (1 / 7), 9, dtype=torch.float64) ** 7
    torch.testing.assert_close(sigma[:-1], expected)


def test_entries_are_those_of_published_samplers():
    modelscope = steps_of(time_grids.leading(25, offset=1))
    assert modelscope[:3] + modelscope[-3:] == [961, 921, 881, 81, 41, 1]
    animatediff = steps_of(time_grids.linspace(25))
    assert animatediff[:4] + animatediff[-3:] == [999, 957, 916, 874, 83, 42, 0]
    videocrafter = steps_of(time_grids.leading(50))
    assert videocrafter[:2] + videocrafter[-2:] == [981, 961, 21, 1]
    cogvideox = steps_of(time_grids.trailing(50))
    assert cogvideox[:2] + cogvideox[-2:] == [999, 979, 39, 19]


@pytest.mark.parametrize(
    ("num_steps", "original_steps", "expected"),
    [
        (4, 50, [999, 759, 499, 259]),
        (6, 50, [999, 839, 679, 499, 339, 179]),
        (8, 50, [999, 879, 759, 639, 499, 379, 259, 139]),
        (4, 100, [999, 749, 499, 249]),
        (6, 100, [999, 839, 669, 499, 339, 169]),
        (8, 100, [999, 879, 749, 629, 499, 379, 249, 129]),
        (4, 200, [999, 749, 499, 249]),
        (8, 200, [999, 874, 749, 624, 499, 374, 249, 124]),
    ],
)
def test_latent_consistency_entries_are_the_published_ones(num_steps, original_steps, expected):
    assert steps_of(time_grids.lcm(num_steps, original_steps)) == expected


def test_the_last_step_may_leave_the_noise_of_the_first_entry():
    for make in (time_grids.leading, time_grids.trailing, time_grids.linspace):
        assert make(10, ends_clean=False)[-1] == 1 / 1000


@pytest.mark.parametrize("make", [time_grids.trailing, time_grids.linspace])
def test_every_entry_of_a_table_may_be_visited(make):
    assert steps_of(make(1000)) == list(range(999, -1, -1))
    assert steps_of(time_grids.leading(1000, offset=0)) == list(range(999, -1, -1))


def test_given_timesteps_may_be_fractions():
    grid = time_grids.from_timesteps([999, 499.5, 9], num_timesteps=1000)
    assert grid.tolist() == pytest.approx([1.0, 0.5005, 0.01, 0.0])


def test_published_ddim_steps_are_the_next_time_on_leading_grids_only():
    for make, same in ((time_grids.leading, True), (time_grids.linspace, False)):
        grid = make(25)
        following = time_grids.constant_stride(grid)
        assert torch.allclose(following, grid[1:]) is same
        assert torch.allclose(following[:-1], grid[:-2] - 0.04)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: time_grids.uniform(0), "num_steps=0"),
        (lambda: time_grids.uniform(4, 0.3, 0.3), "t_max=0.3"),
        (lambda: time_grids.shifted(4, 0.0), "shift=0.0"),
        (lambda: time_grids.linear_quadratic(4, 1.0), "threshold=1.0"),
        (lambda: time_grids.karras(4, EDM(), 0.0), "sigma_min=0.0"),
        (lambda: time_grids.karras(4, EDM(10.0)), "sigma_max=80.0, expected at most 10,"),
        (lambda: time_grids.leading(1001), "num_steps=1001, expected 1 to 1000"),
        (lambda: time_grids.leading(1000), "got timesteps from 1000 to 1, .* the table, 999 to 0"),
        (lambda: time_grids.from_timesteps([500, -1]), "got timesteps from 500 to -1"),
        (lambda: time_grids.from_timesteps([5, 7, 3]), "got timestep 7 after 5"),
        (lambda: time_grids.from_timesteps([5, 5]), "got timestep 5 after 5"),
        (lambda: time_grids.from_timesteps([]), "got no timesteps"),
        (lambda: time_grids.lcm(9, 8), "num_steps=9, expected 1 to 8"),
    ],
)
def test_impossible_grids_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_karras_levels_reach_far_on_paths_that_end_in_pure_noise():
    grid = time_grids.karras(5, LinearPath(), 0.002, 1e4)
    assert grid[0].item() == pytest.approx(1e4 / (1 + 1e4))


def test_larger_and_longer_clips_are_moved_further():
    assert torch.equal(time_grids.shifted_by_tokens(5, 256, 1), time_grids.uniform(5))
    # By 3 for 4096 tokens, twice as far for four frames: 6 * 0.5 / (1 + 5 * 0.5).
    assert float(time_grids.shifted_by_tokens(2, 4096, 4)[1]) == pytest.approx(6 / 7)
    with pytest.raises(ValueError, match="got num_frames=0, expected at least 1"):
        time_grids.shifted_by_tokens(2, 256, 0)
