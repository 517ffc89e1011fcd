"""Every sampler that diffusers has too, step by step on the same model output, in float64."""

import pytest
import torch
from double_diffusers import double_scheduler

from vdm.diffusion import samplers, time_grids
from vdm.diffusion.denoiser import Denoiser, consistency_boundary
from vdm.diffusion.discrete_schedules import DDPMTable
from vdm.diffusion.preconditioning import SVDPreconditioning
from vdm.diffusion.schedules import EDM, LinearPath
from vdm.diffusion.shifted_schedules import SNRShifted, ZeroTerminalSNR
from vdm.diffusion.targets import X0, Eps, V, Velocity
from vdm.types import Conditioning

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
PREDICTIONS = {"epsilon": Eps(), "v_prediction": V(), "flow_prediction": Velocity()}
TABLE = DDPMTable()
COGVIDEOX = ZeroTerminalSNR(SNRShifted(TABLE, 3.0))


def denoise(xt, t):
    """Some estimate of ``x0``: neither linear nor constant in time."""
    return torch.tanh(1.3 * xt + t[:, None]) - 0.2


def start(scale=1.0):
    generator = torch.Generator().manual_seed(5)
    return scale * torch.randn(2, 7, generator=generator, dtype=torch.float64)


def drawing(seed):
    """Noise as a generator handed to diffusers would give it."""
    generator = torch.Generator().manual_seed(seed)
    return lambda like: torch.randn(like.shape, generator=generator, dtype=like.dtype)


def model_output(scheduler, schedule, x, t):
    """What a network trained for the scheduler's prediction type would say."""
    t = torch.full((len(x),), float(t), dtype=torch.float64)
    target = PREDICTIONS[scheduler.config.prediction_type]
    return target.from_x0(schedule, x, denoise(x, t), t)


def run_reference(scheduler, schedule, x, seed=0, **options):
    """Walk a scheduler over its timesteps ``k`` at ``t = (k + 1) / 1000``; VP samples."""
    if "generator" in options:
        options["generator"] = torch.Generator().manual_seed(seed)
    for k in scheduler.timesteps:
        output = model_output(scheduler, schedule, x, (float(k) + 1) / 1000)
        x = scheduler.step(output, k, x, **options).prev_sample
    return x


def run_reference_in_edm_form(scheduler, x, seed=None):
    """The same for schedulers whose samples are ``xt / alpha``; their network sees ``xt``."""
    options = {} if seed is None else {"generator": torch.Generator().manual_seed(seed)}
    y = x * scheduler.init_noise_sigma
    for k in scheduler.timesteps:
        xt = scheduler.scale_model_input(y, k)
        eps = model_output(scheduler, TABLE, xt, (float(k) + 1) / 1000)
        y = scheduler.step(eps, k, y, **options).prev_sample
    return y


def agree(got, expected, tolerance=1e-10):
    torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance)


def timesteps_agree(scheduler, grid):
    torch.testing.assert_close(scheduler.timesteps.double(), 1000 * grid[:-1] - 1)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize(
    ("spacing", "num_steps"), [("leading", 25), ("trailing", 20), ("trailing", 7), ("linspace", 25)]
)
@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_ddim(monkeypatch, spacing, num_steps, eta, prediction_type):
    grid = getattr(time_grids, spacing)(num_steps)
    scheduler = double_scheduler(
        monkeypatch,
        "ddim.DDIMScheduler",
        clip_sample=False,
        timestep_spacing=spacing,
        steps_offset=1 if spacing == "leading" else 0,
        prediction_type=prediction_type,
        **BETAS,
    )
    scheduler.set_timesteps(num_steps)
    timesteps_agree(scheduler, grid)
    expected = run_reference(scheduler, TABLE, start(), seed=3, eta=eta, generator=True)
    got = samplers.ddim(
        denoise,
        TABLE,
        start(),
        grid,
        eta=eta,
        next_times=time_grids.constant_stride(grid),
        noise=drawing(3),
    )
    agree(got, expected)


def test_ddim_whose_last_step_goes_to_the_first_entry(monkeypatch):
    scheduler = double_scheduler(
        monkeypatch,
        "ddim.DDIMScheduler",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        **BETAS,
    )
    scheduler.set_timesteps(50)
    grid = time_grids.leading(50, ends_clean=False)
    agree(samplers.ddim(denoise, TABLE, start(), grid), run_reference(scheduler, TABLE, start()))


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("sampler", [samplers.euler, samplers.ddim])
def test_euler(monkeypatch, spacing, sampler):
    scheduler = double_scheduler(
        monkeypatch, "euler_discrete.EulerDiscreteScheduler", timestep_spacing=spacing, **BETAS
    )
    scheduler.set_timesteps(20)
    grid = time_grids.from_timesteps(scheduler.timesteps)
    x = start()
    alpha = TABLE.alpha(grid[0]) * scheduler.init_noise_sigma
    agree(sampler(denoise, TABLE, alpha * x, grid), run_reference_in_edm_form(scheduler, x))


def test_euler_on_karras_noise_levels(monkeypatch):
    scheduler = double_scheduler(
        monkeypatch, "euler_discrete.EulerDiscreteScheduler", use_karras_sigmas=True, **BETAS
    )
    scheduler.set_timesteps(20)
    ends = TABLE.edm_sigma(torch.tensor([0.001, 1.0], dtype=torch.float64))
    grid = time_grids.karras(20, TABLE, *ends.tolist())
    torch.testing.assert_close(TABLE.edm_sigma(grid), scheduler.sigmas)
    # their timesteps are float32 by another way of saying so
    torch.testing.assert_close(scheduler.timesteps, 1000 * grid[:-1] - 1, rtol=1e-6, atol=1e-4)
    scheduler.timesteps = 1000 * grid[:-1] - 1
    x = start()
    alpha = TABLE.alpha(grid[0]) * scheduler.init_noise_sigma
    agree(samplers.euler(denoise, TABLE, alpha * x, grid), run_reference_in_edm_form(scheduler, x))


def test_ancestral(monkeypatch):
    scheduler = double_scheduler(
        monkeypatch,
        "euler_ancestral_discrete.EulerAncestralDiscreteScheduler",
        timestep_spacing="trailing",
        **BETAS,
    )
    scheduler.set_timesteps(20)
    grid, x = time_grids.trailing(20), start()
    alpha = TABLE.alpha(grid[0]) * scheduler.init_noise_sigma
    got = samplers.ancestral(denoise, TABLE, alpha * x, grid, noise=drawing(9))
    agree(got, run_reference_in_edm_form(scheduler, x, seed=9))


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize(
    ("spacing", "num_steps"), [("leading", 25), ("trailing", 7), ("linspace", 25)]
)
def test_ddpm(monkeypatch, spacing, num_steps, prediction_type):
    grid = getattr(time_grids, spacing)(num_steps)
    scheduler = double_scheduler(
        monkeypatch,
        "ddpm.DDPMScheduler",
        clip_sample=False,
        timestep_spacing=spacing,
        steps_offset=1 if spacing == "leading" else 0,
        prediction_type=prediction_type,
        **BETAS,
    )
    scheduler.set_timesteps(num_steps)
    timesteps_agree(scheduler, grid)
    expected = run_reference(scheduler, TABLE, start(), seed=2, generator=True)
    got = samplers.ancestral(denoise, TABLE, start(), grid, noise=drawing(2))
    agree(got, expected, 1e-9)  # theirs ends with noise of standard deviation 1e-10


def test_heun_of_edm(monkeypatch):
    scheduler = double_scheduler(
        monkeypatch, "heun_discrete.HeunDiscreteScheduler", timestep_spacing="trailing", **BETAS
    )
    scheduler.set_timesteps(20)
    x = start()
    # their equation is in xt / alpha, which is the path of EDM
    schedule = EDM(float(scheduler.sigmas[0]))
    grid = torch.cat([scheduler.sigmas[:1], scheduler.sigmas[1::2]]) / schedule.sigma_max

    def denoise_edm(y, t):
        time = TABLE.t_from_edm_sigma(schedule.sigma(t))
        return denoise(TABLE.alpha(time)[:, None] * y, time)

    got = samplers.heun(denoise_edm, schedule, x * scheduler.init_noise_sigma, grid)
    agree(got, run_reference_in_edm_form(scheduler, x))


@pytest.mark.parametrize("spacing", ["linspace", "leading", "trailing"])
@pytest.mark.parametrize("num_steps", [6, 20])
@pytest.mark.parametrize("stochastic", [False, True])
def test_dpm_solver_plus_plus(monkeypatch, spacing, num_steps, stochastic):
    scheduler = double_scheduler(
        monkeypatch,
        "dpmsolver_multistep.DPMSolverMultistepScheduler",
        algorithm_type="sde-dpmsolver++" if stochastic else "dpmsolver++",
        solver_order=2,
        solver_type="midpoint",
        final_sigmas_type="zero",
        timestep_spacing=spacing,
        **BETAS,
    )
    scheduler.set_timesteps(num_steps)
    grid = time_grids.from_timesteps(scheduler.timesteps)
    expected = run_reference(scheduler, TABLE, start(), seed=4, generator=True)
    if stochastic:
        got = samplers.dpmpp_2m_sde(denoise, TABLE, start(), grid, noise=drawing(4))
    else:
        got = samplers.dpmpp_2m(denoise, TABLE, start(), grid)
    agree(got, expected)


@pytest.mark.parametrize("kind", ["bh1", "bh2"])
@pytest.mark.parametrize("num_steps", [3, 5, 20])
def test_unipc(monkeypatch, kind, num_steps):
    scheduler = double_scheduler(
        monkeypatch,
        "unipc_multistep.UniPCMultistepScheduler",
        solver_order=2,
        solver_type=kind,
        lower_order_final=kind == "bh2",
        timestep_spacing="trailing",
        **BETAS,
    )
    scheduler.set_timesteps(num_steps)
    grid = time_grids.from_timesteps(scheduler.timesteps)
    if kind == "bh1":  # theirs multiplies infinity by zero in a step to clean data
        grid, scheduler.timesteps = grid[:-1], scheduler.timesteps[:-1]
    agree(
        samplers.unipc(denoise, TABLE, start(), grid, kind=kind),
        run_reference(scheduler, TABLE, start()),
    )


@pytest.mark.parametrize("kind", ["bh1", "bh2"])
def test_unipc_on_the_linear_path(monkeypatch, kind):
    scheduler = double_scheduler(
        monkeypatch,
        "unipc_multistep.UniPCMultistepScheduler",
        solver_order=2,
        solver_type=kind,
        prediction_type="flow_prediction",
        use_flow_sigmas=True,
        flow_shift=3.0,
    )
    scheduler.set_timesteps(50)
    grid, path = scheduler.sigmas, LinearPath()
    assert grid[:3].tolist() == pytest.approx([0.999999, 0.99325007, 0.98631543], abs=1e-7)
    if kind == "bh1":
        grid = grid[:-1]
    x = expected = start()
    for t, k in zip(grid[:-1], scheduler.timesteps[: len(grid) - 1], strict=True):
        output = model_output(scheduler, path, expected, t)
        expected = scheduler.step(output, k, expected).prev_sample
    agree(samplers.unipc(denoise, path, x, grid, kind=kind), expected)


@pytest.mark.parametrize("num_steps", [1, 4, 8])
def test_lcm(monkeypatch, num_steps):
    scheduler = double_scheduler(
        monkeypatch, "lcm.LCMScheduler", original_inference_steps=50, clip_sample=False, **BETAS
    )
    scheduler.set_timesteps(num_steps)
    grid = time_grids.lcm(num_steps, original_steps=50)
    timesteps_agree(scheduler, grid)
    expected = run_reference(scheduler, TABLE, start(), seed=6, generator=True)
    consistent = consistency_boundary(denoise)
    got = samplers.lcm(consistent, TABLE, start(), grid, noise=drawing(6))
    agree(got, expected, 1e-7)  # their boundary scales are float32 from integer timesteps


@pytest.mark.parametrize("shift", [1.0, 7.0])
def test_euler_of_flow_matching(monkeypatch, shift):
    scheduler = double_scheduler(
        monkeypatch, "flow_match_euler_discrete.FlowMatchEulerDiscreteScheduler", shift=shift
    )
    n = 50
    scheduler.set_timesteps(sigmas=time_grids.uniform(n)[:-1].tolist())
    grid, path = time_grids.shifted(n, shift), LinearPath()
    torch.testing.assert_close(grid, scheduler.sigmas.double())
    x = expected = start()
    for t, k in zip(grid[:-1], scheduler.timesteps, strict=True):
        t = t.expand(len(x))
        velocity = Velocity().from_x0(path, expected, denoise(expected, t), t)
        expected = scheduler.step(velocity, k, expected).prev_sample
    agree(samplers.euler(denoise, path, x, grid), expected)


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("num_steps", [1, 20])
def test_heun_of_flow_matching(monkeypatch, shift, num_steps):
    scheduler = double_scheduler(
        monkeypatch, "flow_match_heun_discrete.FlowMatchHeunDiscreteScheduler", shift=shift
    )
    scheduler.set_timesteps(num_steps)
    path = LinearPath()
    grid = torch.cat([scheduler.sigmas[:1], scheduler.sigmas[1::2]])  # each but the ends is twice
    x = expected = start()
    for k in scheduler.timesteps:
        t = (k / 1000).expand(len(x))
        velocity = Velocity().from_x0(path, expected, denoise(expected, t), t)
        expected = scheduler.step(velocity, k, expected).prev_sample
    agree(samplers.heun(denoise, path, x, grid), expected)


def cogvideox_scheduler(monkeypatch, cls, num_steps):
    scheduler = double_scheduler(
        monkeypatch,
        cls,
        clip_sample=False,
        rescale_betas_zero_snr=True,
        snr_shift_scale=3.0,
        timestep_spacing="trailing",
        prediction_type="v_prediction",
        **BETAS,
    )
    scheduler.set_timesteps(num_steps)
    return scheduler


def test_the_table_of_cogvideox(monkeypatch):
    scheduler = cogvideox_scheduler(monkeypatch, "ddim_cogvideox.CogVideoXDDIMScheduler", 50)
    entries = (torch.arange(1000, dtype=torch.float64) + 1) / 1000
    agree(COGVIDEOX.alpha(entries) ** 2, scheduler.alphas_cumprod, 1e-13)


@pytest.mark.parametrize("num_steps", [50, 7])  # with 7, steps do not end at the grid's next time
def test_cogvideox_ddim(monkeypatch, num_steps):
    scheduler = cogvideox_scheduler(monkeypatch, "ddim_cogvideox.CogVideoXDDIMScheduler", num_steps)
    grid = time_grids.trailing(num_steps)
    timesteps_agree(scheduler, grid)
    agree(
        samplers.ddim_constant_stride(denoise, COGVIDEOX, start(), grid),
        run_reference(scheduler, COGVIDEOX, start()),
    )


@pytest.mark.parametrize("num_steps", [50, 7])
def test_cogvideox_dpm(monkeypatch, num_steps):
    """From its second step on the released sampler draws twice and uses the second draw."""
    scheduler = cogvideox_scheduler(monkeypatch, "dpm_cogvideox.CogVideoXDPMScheduler", num_steps)
    clip = start().reshape(2, 1, 1, 1, 7) * torch.ones(1, 2, 3, 1, 1)  # b c t h w

    def velocity(x, t):
        return V().from_x0(
            COGVIDEOX, x, torch.tanh(1.3 * x + t) - 0.2, torch.full((2,), t, dtype=x.dtype)
        )

    generators = [torch.Generator().manual_seed(seed) for seed in (8, 3)]
    expected, x0, before = clip.transpose(1, 2), None, None  # frames are first there
    for k in scheduler.timesteps:
        output = velocity(expected, (float(k) + 1) / 1000)
        expected, x0 = scheduler.step(output, x0, k, before, expected, generator=generators)
        before = k
    ours = [torch.Generator().manual_seed(seed) for seed in (8, 3)]

    def draw(like):
        kind = {"dtype": torch.float64}
        return torch.stack([torch.randn(like.shape[1:], generator=g, **kind) for g in ours])

    grid = time_grids.trailing(num_steps)
    got = samplers.cogvideox_sde(
        lambda x, t: torch.tanh(1.3 * x + t[:, None, None, None, None]) - 0.2,
        COGVIDEOX,
        clip,
        grid,
        noise=draw,
    )
    agree(got, expected.transpose(1, 2))


def svd_scheduler(monkeypatch):
    scheduler = double_scheduler(
        monkeypatch,
        "euler_discrete.EulerDiscreteScheduler",
        prediction_type="v_prediction",
        sigma_min=0.002,
        sigma_max=700.0,
        use_karras_sigmas=True,
        timestep_type="continuous",
        timestep_spacing="leading",
        steps_offset=1,
        **BETAS,
    )
    scheduler.set_timesteps(25)
    return scheduler


def test_svd_noise_levels(monkeypatch):
    scheduler = svd_scheduler(monkeypatch)
    schedule = EDM(700.0)
    grid = time_grids.karras(25, schedule, 0.002, 700.0)
    torch.testing.assert_close(schedule.edm_sigma(grid), scheduler.sigmas)
    assert float(scheduler.init_noise_sigma) == pytest.approx(schedule.prior_std())


def test_svd(monkeypatch):
    scheduler, schedule = svd_scheduler(monkeypatch), EDM(700.0)

    def network(x, c_noise, cond):
        return torch.tanh(1.3 * x + c_noise[:, None]) - 0.2

    x = expected = start(schedule.prior_std())
    for k, sigma in zip(scheduler.timesteps, scheduler.sigmas[:-1], strict=True):
        c_noise = sigma.log() / 4
        assert float(k) == pytest.approx(float(c_noise), rel=1e-6)  # theirs is float32
        scaled = scheduler.scale_model_input(expected, k)
        v = network(scaled, c_noise.expand(len(x)), Conditioning())
        expected = scheduler.step(v, k, expected).prev_sample
    denoiser = Denoiser(network, schedule, X0(), SVDPreconditioning()).bind(Conditioning())
    grid = time_grids.karras(25, schedule, 0.002, 700.0)
    agree(samplers.euler(denoiser, schedule, x, grid), expected)
