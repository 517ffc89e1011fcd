"""diffusers' schedulers, by their settings: the same tables and the same timesteps."""

import inspect
import json

import diffusers
import pytest
import torch

from tests.pretrained.tiny_models import DDIM as MODELSCOPE
from tests.pretrained.tiny_models import KARRAS as SVD
from tests.pretrained.tiny_models import LINEAR as ANIMATEDIFF
from tests.pretrained.tiny_models import SD
from vdm.diffusion import samplers, time_grids
from vdm.diffusion.preconditioning import NoPreconditioning, SVDPreconditioning
from vdm.diffusion.schedules import EDM, LinearPath
from vdm.diffusion.shifted_schedules import ZeroTerminalSNR
from vdm.diffusion.targets import X0, Eps, V, Velocity
from vdm.pretrained import load_schedule
from vdm.pretrained.diffusers_scheduler import (
    SamplingRules,
    config_from_rules,
    rules_from_config,
)

COGVIDEOX = SD | {
    "clip_sample": False,
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "snr_shift_scale": 3.0,
    "timestep_spacing": "trailing",
}
CASES = {
    "modelscope": ("DDIMScheduler", MODELSCOPE, "ddim"),
    "animatediff": ("DDIMScheduler", ANIMATEDIFF, "ddim_constant_stride"),
    "trailing": (
        "DDIMScheduler",
        SD | {"clip_sample": False, "timestep_spacing": "trailing"},
        "ddim_constant_stride",
    ),
    "animatelcm": (
        "LCMScheduler",
        {"beta_schedule": "linear", "original_inference_steps": 100},
        "latent_consistency",
    ),
    "lcm": ("LCMScheduler", {}, "latent_consistency"),
    "multistep": ("DPMSolverMultistepScheduler", SD, "dpmpp_2m"),
    "multistep leading": (
        "DPMSolverMultistepScheduler",
        SD | {"timestep_spacing": "leading", "steps_offset": 1},
        "dpmpp_2m",
    ),
    "stochastic": (
        "DPMSolverMultistepScheduler",
        SD | {"algorithm_type": "sde-dpmsolver++", "timestep_spacing": "trailing"},
        "dpmpp_2m_sde",
    ),
    "pndm": (
        "PNDMScheduler",
        SD | {"skip_prk_steps": True, "steps_offset": 1},
        "pndm",
    ),
    "unipc": ("UniPCMultistepScheduler", SD, "unipc"),
    "euler": ("EulerDiscreteScheduler", SD | {"timestep_spacing": "trailing"}, "euler"),
    "ancestral": (
        "EulerAncestralDiscreteScheduler",
        SD | {"timestep_spacing": "leading", "steps_offset": 1},
        "ancestral",
    ),
    "cogvideox 2b": ("CogVideoXDDIMScheduler", COGVIDEOX, "ddim_constant_stride"),
    "cogvideox 5b": (
        "CogVideoXDPMScheduler",
        COGVIDEOX | {"snr_shift_scale": 1.0},
        "cogvideox_sde",
    ),
    "ddpm": ("DDPMScheduler", SD | {"clip_sample": False}, "ancestral"),
}


def grid_of(rules, steps):
    make = getattr(time_grids, rules.time_grid)
    needs = "schedule" in inspect.signature(make).parameters
    return make(steps, **({"schedule": rules.schedule} if needs else {}), **rules.time_grid_args)


@pytest.mark.parametrize("steps", [4, 20])
@pytest.mark.parametrize("name", CASES)
def test_timesteps_and_tables_agree(name, steps):
    cls, config, sampler = CASES[name]
    theirs = getattr(diffusers, cls)(**config)
    theirs.set_timesteps(steps)
    rules = rules_from_config({**theirs.config, "_class_name": cls})
    grid = grid_of(rules, steps)
    timesteps = theirs.timesteps.double().unique().flip(0)  # one is visited twice by PNDM
    ours = rules.preconditioning.c_noise(rules.schedule, grid[:-1])
    torch.testing.assert_close(ours, timesteps, rtol=0, atol=1e-6)
    entries = (torch.arange(1000, dtype=torch.float64) + 1) / 1000
    alphas = rules.schedule.alpha(entries) ** 2
    torch.testing.assert_close(alphas, theirs.alphas_cumprod.double(), rtol=1e-4, atol=1e-9)
    assert rules.sampler == sampler
    assert hasattr(samplers, sampler)


def test_stable_video_diffusion_has_noise_levels_without_a_table():
    theirs = diffusers.EulerDiscreteScheduler(**SVD)
    theirs.set_timesteps(25)
    rules = rules_from_config({**theirs.config, "_class_name": "EulerDiscreteScheduler"})
    grid = grid_of(rules, 25)
    assert (rules.schedule, rules.target) == (EDM(700.0), X0())
    assert rules.preconditioning == SVDPreconditioning()
    torch.testing.assert_close(rules.schedule.sigma(grid).float(), theirs.sigmas, rtol=1e-5, atol=0)
    told = rules.preconditioning.c_noise(rules.schedule, grid[:-1])
    torch.testing.assert_close(told.float(), theirs.timesteps, rtol=0, atol=1e-5)


WAN = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}


def test_wan_is_told_whole_numbers_on_the_straight_path():
    theirs = diffusers.UniPCMultistepScheduler(**WAN)
    theirs.set_timesteps(50)
    rules = rules_from_config({**theirs.config, "_class_name": "UniPCMultistepScheduler"})
    assert (rules.schedule, rules.target, rules.sampler) == (LinearPath(), Velocity(), "unipc")
    grid = grid_of(rules, 50)
    torch.testing.assert_close(grid.float(), theirs.sigmas, rtol=0, atol=1e-7)
    told = rules.preconditioning.c_noise(rules.schedule, grid[:-1].float())
    assert torch.equal(told.long(), theirs.timesteps)
    assert told[:3].tolist() == [999, 993, 986]


LTX = {
    "use_dynamic_shifting": True,
    "base_shift": 0.95,
    "max_shift": 2.05,
    "base_image_seq_len": 1024,
    "max_image_seq_len": 4096,
    "shift_terminal": 0.1,
}


@pytest.mark.parametrize("terminal", [0.1, None])
def test_ltx_is_shifted_by_the_size_of_a_clip(terminal):
    theirs = diffusers.FlowMatchEulerDiscreteScheduler(**LTX | {"shift_terminal": terminal})
    mu = 0.95 + (3000 - 1024) * (2.05 - 0.95) / (4096 - 1024)
    theirs.set_timesteps(sigmas=[1 - n / 30 for n in range(30)], mu=mu)
    rules = rules_from_config({**theirs.config, "_class_name": type(theirs).__name__})
    assert rules.preconditioning == NoPreconditioning(1000.0)
    assert (rules.schedule, rules.target, rules.sampler) == (LinearPath(), Velocity(), "euler")
    assert rules.time_grid == "fitted"
    grid = time_grids.fitted(30, 3000, **rules.time_grid_args)
    torch.testing.assert_close(grid.float(), theirs.sigmas, rtol=0, atol=1e-6)


def test_hunyuan_takes_shifted_steps_on_the_straight_path():
    theirs = diffusers.FlowMatchEulerDiscreteScheduler(shift=7.0)
    theirs.set_timesteps(sigmas=torch.linspace(1, 0, 51)[:-1].tolist())
    rules = rules_from_config({**theirs.config, "_class_name": "FlowMatchEulerDiscreteScheduler"})
    assert (rules.schedule, rules.target, rules.sampler) == (LinearPath(), Velocity(), "euler")
    grid = grid_of(rules, 50)
    torch.testing.assert_close(grid.float(), theirs.sigmas, rtol=0, atol=1e-6)
    told = rules.preconditioning.c_noise(rules.schedule, grid[:-1].float())
    torch.testing.assert_close(told, theirs.timesteps, rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", [*CASES, "svd", "wan", "ltx", "flow", "hunyuan"])
def test_settings_are_found_again(name):
    others = {
        "svd": ("EulerDiscreteScheduler", SVD, "euler"),
        "wan": ("UniPCMultistepScheduler", WAN, "unipc"),
        "ltx": ("FlowMatchEulerDiscreteScheduler", LTX, "euler"),
        "flow": ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}, "euler"),
        "hunyuan": ("FlowMatchEulerDiscreteScheduler", {"shift": 7.0}, "euler"),
    }
    cls, config, _ = (CASES | others)[name]
    rules = rules_from_config({"_class_name": cls} | config)
    again = config_from_rules(rules)
    assert rules_from_config(again) == rules
    theirs = [
        getattr(diffusers, c["_class_name"])(**c) for c in ({"_class_name": cls} | config, again)
    ]
    for scheduler in theirs:
        scheduler.set_timesteps(7, **{"mu": 0.7} if name == "ltx" else {})
    assert torch.equal(theirs[0].timesteps, theirs[1].timesteps)


def test_rules_of_our_own_have_no_scheduler_there():
    rules = SamplingRules(LinearPath(), Velocity(), None, "uniform", {}, "dpmpp_2m")
    with pytest.raises(
        ValueError, match="diffusers has no scheduler for dpmpp_2m on the grid unif"
    ):
        config_from_rules(rules)


def test_targets_and_a_table_without_signal_at_the_end():
    config = {"_class_name": "DDIMScheduler", "clip_sample": False}
    assert rules_from_config(config).target == Eps()
    zero = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
    rules = rules_from_config(config | zero)
    assert rules.target == V()
    assert isinstance(rules.schedule, ZeroTerminalSNR)
    assert float(rules.schedule.alpha(torch.ones(()))) == 0


def test_a_scheduler_folder_is_read(tmp_path):
    diffusers.DDIMScheduler(**MODELSCOPE).save_pretrained(tmp_path)
    rules = load_schedule(tmp_path)
    assert rules.time_grid == "leading"
    assert rules.time_grid_args == {"num_timesteps": 1000, "offset": 1, "ends_clean": False}
    (tmp_path / "scheduler_config.json").write_text(json.dumps([]))
    with pytest.raises(ValueError, match="got list, expected a JSON object"):
        load_schedule(tmp_path)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"_class_name": "HeunDiscreteScheduler"}, "got class HeunDis.*, expected one of DDIMS"),
        ({"_class_name": "PNDMScheduler", "skip_prk_steps": False}, "got skip_prk_steps=False"),
        (
            {"_class_name": "PNDMScheduler", "prediction_type": "v_prediction"},
            "got prediction_type='v_prediction', expected 'epsilon'",
        ),
        ({}, "got clip_sample=True, expected False"),
        (MODELSCOPE | {"beta_schedule": "cosine"}, "got beta_schedule='cosine', expected one of"),
        (MODELSCOPE | {"prediction_type": "flow"}, "got prediction_type='flow', expected one of"),
        (MODELSCOPE | {"timestep_spacing": "log"}, "expected leading, trailing or linspace"),
        (MODELSCOPE | {"oars": 2}, "got oars=2, which nothing reads"),
        (
            {"_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "deis"},
            r"got algorithm_type='deis', expected dpmsolver\+\+ or sde-dpmsolver",
        ),
        (
            {"_class_name": "EulerDiscreteScheduler", "use_karras_sigmas": True},
            "got use_karras_sigmas=True, expected False",
        ),
        (
            {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift_terminal": 0.1},
            "got shift_terminal=0.1, expected None",
        ),
        (
            {"_class_name": "EulerDiscreteScheduler"} | SVD | {"sigma_max": None},
            "got no sigma_min or sigma_max",
        ),
    ],
)
def test_settings_that_ours_cannot_have_are_refused(config, message):
    with pytest.raises(ValueError, match=message):
        rules_from_config({"_class_name": "DDIMScheduler"} | config)
