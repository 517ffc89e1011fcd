import itertools
import math

import pytest
import torch
from gaussian_data import GaussianData, UnitNoise, sample_mean_and_std

from vdm.diffusion import samplers, time_grids
from vdm.diffusion.discrete_schedules import DDPMTable
from vdm.diffusion.schedules import EDM, Cosine, LinearPath, VPLinear
from vdm.diffusion.shifted_schedules import ZeroTerminalSNR
from vdm.utils.rng import SampleNoise

DATA = GaussianData(mean=0.3, std=0.5)
DETERMINISTIC = [
    samplers.euler,
    samplers.heun,
    samplers.ddim,
    samplers.dpmpp_2m,
    samplers.unipc,
]
STOCHASTIC = [samplers.ancestral, samplers.dpmpp_2m_sde, samplers.lcm]
ALL = DETERMINISTIC + STOCHASTIC


def unipc_bh1(*args, **options):
    return samplers.unipc(*args, kind="bh1", **options)


def ddim_half(*args, **options):
    return samplers.ddim(*args, eta=0.5, **options)


def dpmpp_2m_sde_half(*args, **options):
    return samplers.dpmpp_2m_sde(*args, eta=0.5, **options)


def grids(num_steps):
    """Per schedule, a grid whose log-SNR is a smooth function of the index."""
    return {
        LinearPath(): time_grids.uniform(num_steps, 0.95, 0.05),
        Cosine(): time_grids.uniform(num_steps, 0.95, 0.05),
        VPLinear(): time_grids.uniform(num_steps, t_min=0.05),
        EDM(): time_grids.karras(num_steps + 1, EDM())[:-1],
    }


def error(sampler, schedule, times):
    t_from, t_to = float(times[0]), float(times[-1])
    x = torch.linspace(-2, 2, 5, dtype=torch.float64)[None] * schedule.prior_std(t_from)
    expected = DATA.flow(schedule, x, t_from, t_to)
    got = sampler(DATA.denoiser(schedule), schedule, x, times)
    return float((got - expected).abs().max())


@pytest.mark.parametrize("schedule", list(grids(1)), ids=str)
@pytest.mark.parametrize(
    ("sampler", "ratio"),
    [
        (samplers.euler, 2),
        (samplers.ddim, 2),
        (samplers.heun, 4),
        (samplers.dpmpp_2m, 4),
        (samplers.unipc, 4),
        (unipc_bh1, 4),
    ],
)
def test_error_falls_as_the_order_says_when_steps_double(sampler, ratio, schedule):
    coarse, fine = (error(sampler, schedule, grids(n)[schedule]) for n in (80, 160))
    assert fine < 0.02
    assert coarse / fine > 0.9 * ratio


@pytest.mark.parametrize("schedule", [LinearPath(), Cosine()], ids=str)
@pytest.mark.parametrize(
    ("sampler", "ratio"),
    [
        (samplers.euler, 2),
        (samplers.ddim, 2),
        (samplers.heun, 4),
        # second order up to a logarithm, because the log-SNR is infinite at both ends
        (samplers.dpmpp_2m, 3.2),
        (samplers.unipc, 4),
        (unipc_bh1, 4),
    ],
)
def test_the_order_holds_from_pure_noise_to_clean_data(sampler, ratio, schedule):
    times = [time_grids.uniform(n) for n in (160, 320)]
    coarse, fine = (error(sampler, schedule, grid) for grid in times)
    assert fine < 0.01
    assert coarse / fine > 0.9 * ratio


@pytest.mark.parametrize("schedule", list(grids(1)), ids=str)
def test_stochastic_samplers_reach_the_spread_of_the_data(schedule):
    denoise = DATA.denoiser(schedule)
    for sampler in (samplers.ancestral, samplers.dpmpp_2m_sde, ddim_half, dpmpp_2m_sde_half):
        off = []
        for n in (40, 80):
            times = grids(n)[schedule]
            mean, std = sample_mean_and_std(sampler, denoise, schedule, times)
            end = torch.tensor(float(times[-1]), dtype=torch.float64)
            mean_goal, std_goal = DATA.marginal(schedule, end)
            off.append(max(abs(mean - float(mean_goal)), abs(std - float(std_goal))))
        assert off[1] < 0.04
        assert off[1] < 0.7 * off[0]


@pytest.mark.parametrize("schedule", list(grids(1)), ids=str)
def test_consistency_sampling_with_the_exact_function_is_exact(schedule):
    times = torch.cat([grids(5)[schedule], torch.zeros(1, dtype=torch.float64)])
    mean, std = sample_mean_and_std(samplers.lcm, DATA.consistency(schedule), schedule, times)
    # what is left is that the start has the prior's spread and not that of the noisy data
    assert mean == pytest.approx(DATA.mean, abs=0.01)
    assert std == pytest.approx(DATA.std, abs=0.01)


def test_euler_is_the_euler_method_of_flow_matching_on_the_linear_path():
    denoise, x = torch.sin, torch.randn(3, 4, dtype=torch.float64)
    times = time_grids.uniform(7)
    expected = x
    for t, t_next in itertools.pairwise(times):
        x0 = denoise(expected)
        expected = expected + (t_next - t) * (expected - x0) / t
    got = samplers.euler(lambda xt, t: denoise(xt), LinearPath(), x, times)
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("schedule", list(grids(1)), ids=str)
def test_samplers_that_are_the_same_method_agree(schedule):
    times = grids(6)[schedule]
    x = schedule.prior_std(float(times[0])) * torch.randn(2, 5, dtype=torch.float64)

    def run(sampler, **options):
        noise = SampleNoise([3, 4])
        return sampler(lambda xt, t: torch.tanh(xt), schedule, x, times, noise=noise, **options)

    torch.testing.assert_close(run(samplers.ddim), run(samplers.euler))
    torch.testing.assert_close(run(samplers.ddim, eta=1.0), run(samplers.ancestral))
    torch.testing.assert_close(run(samplers.dpmpp_2m_sde, eta=0.0), run(samplers.dpmpp_2m))


@pytest.mark.parametrize("sampler", ALL)
@pytest.mark.parametrize(
    "schedule", [LinearPath(), Cosine(), ZeroTerminalSNR(DDPMTable()), VPLinear()], ids=str
)
@pytest.mark.parametrize("num_steps", [1, 2, 3])
def test_grids_from_pure_noise_to_clean_data_give_numbers(sampler, schedule, num_steps):
    x = torch.randn(2, 5)
    times = time_grids.uniform(num_steps)
    got = sampler(DATA.denoiser(schedule), schedule, x, times, noise=SampleNoise([0, 1]))
    assert got.isfinite().all()
    if num_steps == 1:  # one step lands on the estimate
        one = torch.ones(2, dtype=torch.float32)
        torch.testing.assert_close(got, DATA.denoiser(schedule)(x, one))


@pytest.mark.parametrize("sampler", ALL)
def test_a_step_of_no_length_changes_nothing(sampler):
    schedule = DDPMTable()
    grid = time_grids.linspace(4, ends_clean=False)
    x, denoise = torch.randn(2, 5), DATA.consistency(schedule)

    def run(times):
        return sampler(denoise, schedule, x, times, noise=SampleNoise([0, 1]))

    # LCM noises its estimate again, and UniPC uses the evaluation for a correction
    if sampler not in (samplers.lcm, samplers.unipc):
        torch.testing.assert_close(run(grid), run(grid[:-1]))
    assert run(grid).isfinite().all()


def test_unipc_takes_pure_noise_in_both_kinds():
    x, schedule = torch.randn(2, 5), LinearPath()
    for kind in ("bh1", "bh2"):
        got = samplers.unipc(
            DATA.denoiser(schedule), schedule, x, time_grids.uniform(20), kind=kind
        )
        torch.testing.assert_close(got, DATA.flow(schedule, x, 1.0, 0.0).float(), atol=0.03, rtol=0)


@pytest.mark.parametrize("sampler", ALL)
def test_inputs_are_not_modified_and_no_state_is_kept(sampler):
    schedule, times = VPLinear(), time_grids.uniform(4)
    x = torch.randn(2, 5)
    before, times_before = x.clone(), times.clone()
    runs = [
        sampler(DATA.denoiser(schedule), schedule, x, times, noise=SampleNoise([0, 1]))
        for _ in range(2)
    ]
    assert torch.equal(*runs)
    assert torch.equal(x, before)
    assert torch.equal(times, times_before)


@pytest.mark.parametrize("sampler", ALL)
def test_a_sample_does_not_depend_on_its_batch(sampler):
    schedule, times, x = Cosine(), time_grids.uniform(5), torch.randn(3, 5)
    denoise = DATA.denoiser(schedule)
    batch = sampler(denoise, schedule, x, times, noise=SampleNoise([7, 8, 9]))
    alone = sampler(denoise, schedule, x[1:2], times, noise=SampleNoise([8]))
    assert torch.equal(batch[1:2], alone)


@pytest.mark.parametrize("sampler", ALL)
def test_half_precision_is_given_to_the_denoiser_and_returned(sampler):
    schedule, seen = LinearPath(), set()

    def denoise(xt, t):
        seen.add((xt.dtype, t.dtype))
        return DATA.denoiser(schedule)(xt, t)

    x = torch.randn(2, 5).bfloat16()
    noise = SampleNoise([0, 1])
    got = sampler(denoise, schedule, x, time_grids.uniform(5), noise=noise)
    assert seen == {(torch.bfloat16, torch.float32)}
    assert got.dtype == torch.bfloat16


@pytest.mark.parametrize("sampler", ALL)
def test_the_callback_is_told_of_every_step(sampler):
    told = []

    def callback(step, num_steps, x):
        told.append((step, num_steps, x))

    x = torch.randn(2, 5)
    times, noise = time_grids.uniform(4), SampleNoise([0, 1])
    got = sampler(DATA.denoiser(Cosine()), Cosine(), x, times, noise=noise, callback=callback)
    assert [(step, n) for step, n, _ in told] == [(k, 4) for k in range(4)]
    assert torch.equal(told[-1][2], got)


@pytest.mark.parametrize(
    ("sampler", "evaluations"),
    [(sampler, 5) for sampler in ALL if sampler is not samplers.heun] + [(samplers.heun, 9)],
)
def test_every_evaluation_is_paid_once(sampler, evaluations):
    times_seen = []

    def denoise(xt, t):
        times_seen.append(t[0].item())
        return torch.zeros_like(xt)

    sampler(denoise, Cosine(), torch.randn(1, 5), time_grids.uniform(5), noise=torch.zeros_like)
    assert len(times_seen) == evaluations
    assert min(times_seen) == pytest.approx(0.2)


@pytest.mark.parametrize("sampler", STOCHASTIC)
def test_no_noise_is_drawn_where_none_is_added(sampler):
    noise = UnitNoise()
    x = torch.zeros(2, 9)
    sampler(DATA.denoiser(Cosine()), Cosine(), x, time_grids.uniform(4), noise=noise)
    assert noise.draws == 3


def test_a_step_may_go_elsewhere_than_to_the_next_time():
    schedule, times = VPLinear(), time_grids.uniform(3)
    x, denoise = torch.randn(2, 5), DATA.denoiser(schedule)
    same = samplers.ddim(denoise, schedule, x, times, next_times=times[1:])
    assert torch.equal(same, samplers.ddim(denoise, schedule, x, times))
    other = samplers.ddim(denoise, schedule, x, times, next_times=times[1:] + 0.1)
    assert not torch.allclose(same, other)


@pytest.mark.parametrize("sampler", [*STOCHASTIC, ddim_half])
def test_stochastic_samplers_ask_for_noise(sampler):
    with pytest.raises(ValueError, match="got noise=None, expected"):
        sampler(DATA.denoiser(Cosine()), Cosine(), torch.randn(2, 5), time_grids.uniform(4))


def run(sampler, times, **options):
    x = torch.randn(2, 5)
    return sampler(DATA.denoiser(Cosine()), Cosine(), x, times, noise=torch.zeros_like, **options)


@pytest.mark.parametrize(
    ("sampler", "options", "message"),
    [
        (samplers.ddim, {"eta": 1.5}, "eta=1.5"),
        (samplers.ddim, {"next_times": torch.zeros(3)}, "got 3 next_times, expected 4"),
        (samplers.dpmpp_2m_sde, {"eta": -1.0}, "eta=-1.0, expected at least 0"),
    ],
)
def test_impossible_options_are_refused(sampler, options, message):
    with pytest.raises(ValueError, match=message):
        run(sampler, time_grids.uniform(4), **options)


def test_a_grid_without_a_step_is_refused():
    with pytest.raises(ValueError, match=r"got times of shape \(1,\)"):
        run(samplers.euler, torch.ones(1))


def test_the_ode_form_needs_no_derivatives_of_the_schedule():
    class NoDerivatives(LinearPath):
        def alpha_dot(self, t):
            raise AssertionError

        sigma_dot = alpha_dot

    for sampler in ALL:
        got = sampler(
            DATA.denoiser(LinearPath()),
            NoDerivatives(),
            torch.randn(2, 5),
            time_grids.uniform(3),
            noise=torch.zeros_like,
        )
        assert math.isfinite(got.sum())
