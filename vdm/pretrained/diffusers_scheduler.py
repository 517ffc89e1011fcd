"""diffusers' ``scheduler_config.json`` as schedule, target, time grid and sampler of ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vdm.diffusion.discrete_schedules import BetaSpacing, DDPMTable
from vdm.diffusion.preconditioning import (
    DiscreteTimesteps,
    NoPreconditioning,
    Preconditioning,
    SVDPreconditioning,
    WholeTimesteps,
)
from vdm.diffusion.schedules import EDM, LinearPath, NoiseSchedule
from vdm.diffusion.shifted_schedules import SNRShifted, ZeroTerminalSNR
from vdm.diffusion.targets import X0, Eps, Target, V, Velocity
from vdm.pretrained.diffusers_files import read_config
from vdm.pretrained.diffusers_settings import ForeignConfig, reading_settings
from vdm.pretrained.parts import Parts

SCHEDULER_CONFIG = "scheduler_config.json"
TARGETS: dict[str, Target] = {"epsilon": Eps(), "v_prediction": V(), "sample": X0()}
BETAS: dict[str, BetaSpacing] = {
    "linear": "linear",
    "scaled_linear": "scaled_linear",
    "squaredcos_cap_v2": "squaredcos",
}
LATENT = (0.00085, 0.012, "scaled_linear")
BETAS_OF_CLASSES = {
    "LCMScheduler": LATENT,
    "CogVideoXDDIMScheduler": LATENT,
    "CogVideoXDPMScheduler": LATENT,
}
"""Where a file does not say them; those of DDPM for all others."""
SHIFTS = {"CogVideoXDDIMScheduler": 3.0, "CogVideoXDPMScheduler": 3.0}
"""Classes whose SNR is divided, and by how much where a file does not say it."""


@dataclass(frozen=True)
class SamplingRules:
    """How a network's output becomes a sample.

    Args:
        schedule: Noise schedule.
        target: What the network predicts.
        preconditioning: How its input and output are scaled.
        time_grid: Name of the published time grid.
        time_grid_args: Its arguments.
        sampler: Name of the published sampler.
    """

    schedule: Any
    target: Any
    preconditioning: Any
    time_grid: str
    time_grid_args: dict[str, float]
    sampler: str


def rules_of(parts: Parts) -> SamplingRules:
    """Those of a model."""
    defaults = parts.defaults
    return SamplingRules(
        parts.schedule,
        parts.target,
        parts.preconditioning,
        defaults.time_grid,
        defaults.time_grid_args,
        defaults.sampler,
    )


def read_rules(folder: Path) -> SamplingRules:
    """The rules that a scheduler's folder stands for.

    Raises:
        FileNotFoundError: If it holds no settings.
        ValueError: As for :func:`rules_from_config`.
    """
    return rules_from_config(read_config(folder, SCHEDULER_CONFIG), str(folder / SCHEDULER_CONFIG))


def rules_from_config(data: Mapping[str, Any], where: str = SCHEDULER_CONFIG) -> SamplingRules:
    """The sampling rules that a scheduler stands for.

    Args:
        data: What ``scheduler_config.json`` holds.
        where: The file, for messages.

    Raises:
        ValueError: If the class is unknown, or a setting asks for what ours cannot do.
    """
    kind = str(data.get("_class_name"))
    if kind not in BUILDERS:
        raise ValueError(f"{where}: got class {kind}, expected one of {', '.join(BUILDERS)}")
    config = ForeignConfig(data, where)
    if kind != "PNDMScheduler":
        config.take("skip_prk_steps", None)  # of a scheduler that the file was once written for
    with reading_settings(where):
        rules = BUILDERS[kind](config)
    config.close()
    return rules


def config_from_rules(rules: SamplingRules) -> dict[str, Any]:
    """The settings of a scheduler that stands for some rules.

    Raises:
        ValueError: If there is none.
    """
    config: dict[str, Any] = {"_class_name": CLASSES.get(rules.sampler)}
    schedule, grid = rules.schedule, rules.time_grid_args
    if isinstance(schedule, ZeroTerminalSNR):
        config["rescale_betas_zero_snr"] = True
        schedule = schedule.base
    if isinstance(schedule, SNRShifted):
        config["snr_shift_scale"] = schedule.scale
        if rules.sampler == "ddim_constant_stride":
            config["_class_name"] = "CogVideoXDDIMScheduler"
        schedule = schedule.base
    if isinstance(schedule, DDPMTable):
        betas = {ours: theirs for theirs, ours in BETAS.items()}
        predictions = {ours: theirs for theirs, ours in TARGETS.items()}
        config |= {
            "num_train_timesteps": schedule.num_steps,
            "beta_start": schedule.beta_start,
            "beta_end": schedule.beta_end,
            "beta_schedule": betas[schedule.betas],
            "prediction_type": predictions.get(rules.target),
        }
    if rules.time_grid == "flow_entries":
        config |= {"num_train_timesteps": grid.get("num_timesteps", 1000)}
        config |= {"use_flow_sigmas": True, "flow_shift": grid.get("shift", 1.0)}
        config["prediction_type"] = "flow_prediction"
    elif rules.time_grid in ("fitted", "shifted"):
        config["_class_name"] = "FlowMatchEulerDiscreteScheduler"
        config["num_train_timesteps"] = round(getattr(rules.preconditioning, "scale", 0))
        config |= {FITTED.get(name, name): value for name, value in grid.items()}
        config["use_dynamic_shifting"] = rules.time_grid == "fitted"
    elif rules.time_grid == "karras":
        levels = {"prediction_type": "v_prediction", "timestep_type": "continuous"}
        config |= {**grid, **levels, "use_karras_sigmas": True}
    elif rules.time_grid == "lcm":
        config["original_inference_steps"] = grid.get("original_steps", 50)
    else:
        config["timestep_spacing"] = rules.time_grid
        config["steps_offset"] = grid.get("offset", 1 if rules.time_grid == "linspace" else 0)
        if config["_class_name"] in ("DDIMScheduler", "PNDMScheduler", *SHIFTS):
            config["set_alpha_to_one"] = bool(grid.get("ends_clean", True))
    if config["_class_name"] in ("DDIMScheduler", "LCMScheduler", *SHIFTS):
        config["clip_sample"] = False
    if rules.sampler == "pndm":
        config["skip_prk_steps"] = True
    if rules.sampler == "dpmpp_2m_sde":
        config["algorithm_type"] = "sde-dpmsolver++"
    try:
        same = rules_from_config(config) == rules
    except ValueError:
        same = False
    if not same:
        raise ValueError(
            f"diffusers has no scheduler for {rules.sampler} on the grid {rules.time_grid} of "
            f"{type(rules.schedule).__name__} with target {type(rules.target).__name__}"
        )
    return config


def _ddim(config: ForeignConfig) -> SamplingRules:
    _check_clipping(config, True)
    ends_clean = config.take("set_alpha_to_one", True)
    name, arguments = _grid(config, "leading", ends_clean=ends_clean)
    sampler = "ddim" if name == "leading" else "ddim_constant_stride"
    return SamplingRules(*_table(config), name, arguments, sampler)


def _pndm(config: ForeignConfig) -> SamplingRules:
    config.expect(
        skip_prk_steps=True,
        timestep_spacing="leading",
        prediction_type="epsilon",
        clip_sample=False,
    )
    ends_clean = config.take("set_alpha_to_one", False)
    name, arguments = _grid(config, "leading", ends_clean=ends_clean)
    return SamplingRules(*_table(config), name, arguments, "pndm")


def _euler(config: ForeignConfig) -> SamplingRules:
    config.expect(
        interpolation_type="linear",
        use_exponential_sigmas=False,
        use_beta_sigmas=False,
        final_sigmas_type="zero",
    )
    is_continuous = config.take("timestep_type", "discrete") == "continuous"
    config.expect(use_karras_sigmas=is_continuous)
    low, high = config.take("sigma_min", None), config.take("sigma_max", None)
    if not is_continuous:
        name, arguments = _grid(config, "linspace")
        return SamplingRules(*_table(config), name, arguments, "euler")
    if low is None or high is None:
        raise ValueError(f"{config.where}: got no sigma_min or sigma_max, expected both")
    config.expect(prediction_type="v_prediction")
    for name in ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule"):
        config.take(name, None)  # of the table, which is not used here
    for name in ("timestep_spacing", "steps_offset", "clip_sample", "set_alpha_to_one"):
        config.take(name, None)
    config.expect(trained_betas=None, rescale_betas_zero_snr=False)
    levels = {"sigma_min": low, "sigma_max": high}
    return SamplingRules(EDM(high), X0(), SVDPreconditioning(), "karras", levels, "euler")


FITTED = {
    "base_latents": "base_image_seq_len",
    "max_latents": "max_image_seq_len",
    "terminal": "shift_terminal",
}
"""What arguments of a time grid are called there, if it is something else."""


def _flow_euler(config: ForeignConfig) -> SamplingRules:
    """The first order on the straight path."""
    config.expect(
        invert_sigmas=False,
        use_karras_sigmas=False,
        use_exponential_sigmas=False,
        use_beta_sigmas=False,
        stochastic_sampling=False,
    )
    usual = {"base_shift": 0.5, "max_shift": 1.15, "base_latents": 256, "max_latents": 4096}
    found = {name: config.take(FITTED.get(name, name), value) for name, value in usual.items()}
    shift, count = config.take("shift", 1.0), config.take("num_train_timesteps", 1000)
    terminal = config.take("shift_terminal", None)
    config.take("time_shift_type", None)  # of shifts that depend on the clip
    name, grid = "shifted", {"shift": shift}
    if config.take("use_dynamic_shifting", False):
        config.expect(time_shift_type="exponential")
        name, grid = "fitted", found | ({} if terminal is None else {"terminal": terminal})
    elif terminal is not None:
        raise ValueError(f"{config.where}: got shift_terminal={terminal}, expected None")
    return SamplingRules(
        LinearPath(), Velocity(), NoPreconditioning(float(count)), name, grid, "euler"
    )


def _euler_ancestral(config: ForeignConfig) -> SamplingRules:
    name, arguments = _grid(config, "linspace")
    return SamplingRules(*_table(config), name, arguments, "ancestral")


def _ddpm(config: ForeignConfig) -> SamplingRules:
    _check_clipping(config, True)
    config.expect(variance_type="fixed_small")
    name, arguments = _grid(config, "leading")
    return SamplingRules(*_table(config), name, arguments, "ancestral")


def _lcm(config: ForeignConfig) -> SamplingRules:
    _check_clipping(config, False)
    config.expect(timestep_scaling=10.0)
    for name in ("timestep_spacing", "steps_offset", "set_alpha_to_one"):
        config.take(name, None)  # nothing reads them there either: the last step ends clean
    arguments = {"original_steps": config.take("original_inference_steps", 50)}
    return SamplingRules(*_table(config), "lcm", arguments, "latent_consistency")


def _cogvideox_ddim(config: ForeignConfig) -> SamplingRules:
    return _cogvideox(config, "ddim_constant_stride")


def _cogvideox_sde(config: ForeignConfig) -> SamplingRules:
    return _cogvideox(config, "cogvideox_sde")


def _cogvideox(config: ForeignConfig, sampler: str) -> SamplingRules:
    """What both samplers have in common."""
    _check_clipping(config, True)
    ends_clean = config.take("set_alpha_to_one", True)
    name, arguments = _grid(config, "leading", ends_clean=ends_clean)
    return SamplingRules(*_table(config), name, arguments, sampler)


def _multistep(config: ForeignConfig) -> SamplingRules:
    config.expect(
        solver_type="midpoint",
        euler_at_final=False,
        use_lu_lambdas=False,
        variance_type=None,
    )
    config.take("lambda_min_clipped", None)  # minus infinity, or below every level of a table
    kind = config.take("algorithm_type", "dpmsolver++")
    samplers = {"dpmsolver++": "dpmpp_2m", "sde-dpmsolver++": "dpmpp_2m_sde"}
    if kind not in samplers:
        raise ValueError(
            f"{config.where}: got algorithm_type={kind!r}, expected {' or '.join(samplers)}"
        )
    return _solver(config, samplers[kind])


def _unipc(config: ForeignConfig) -> SamplingRules:
    config.expect(
        predict_x0=True,
        solver_type="bh2",
        disable_corrector=[],
        solver_p=None,
        sigma_min=None,
        sigma_max=None,
        shift_terminal=None,
    )
    if config.take("use_flow_sigmas", False):
        return _flow(config, "unipc")
    return _solver(config, "unipc")


def _flow(config: ForeignConfig, sampler: str) -> SamplingRules:
    """A multistep solver on the straight path, for networks that are told whole numbers."""
    _check_clipping(config, False)
    config.expect(
        prediction_type="flow_prediction",
        solver_order=2,
        lower_order_final=True,
        use_karras_sigmas=False,
        use_exponential_sigmas=False,
        use_beta_sigmas=False,
        use_dynamic_shifting=False,
        final_sigmas_type="zero",
    )
    for name in ("beta_start", "beta_end", "beta_schedule", "trained_betas"):
        config.take(name, None)  # of a table, which is not used here
    for name in ("timestep_spacing", "steps_offset", "rescale_betas_zero_snr", "time_shift_type"):
        config.take(name, None)
    count = config.take("num_train_timesteps", 1000)
    grid: dict[str, float] = {"shift": config.take("flow_shift", 1.0), "num_timesteps": count}
    return SamplingRules(
        LinearPath(), Velocity(), WholeTimesteps(count), "flow_entries", grid, sampler
    )


def _solver(config: ForeignConfig, sampler: str) -> SamplingRules:
    """What multistep solvers have in common."""
    _check_clipping(config, False)
    config.expect(
        solver_order=2,
        lower_order_final=True,
        use_karras_sigmas=False,
        use_exponential_sigmas=False,
        use_beta_sigmas=False,
        use_flow_sigmas=False,
        use_dynamic_shifting=False,
        final_sigmas_type="zero",
    )
    for name in ("flow_shift", "time_shift_type"):
        config.take(name, None)  # of flows
    name, arguments = _grid(config, "linspace", spare=1)
    return SamplingRules(*_table(config), name, arguments, sampler)


BUILDERS = {
    "DDIMScheduler": _ddim,
    "PNDMScheduler": _pndm,
    "EulerDiscreteScheduler": _euler,
    "EulerAncestralDiscreteScheduler": _euler_ancestral,
    "FlowMatchEulerDiscreteScheduler": _flow_euler,
    "DDPMScheduler": _ddpm,
    "LCMScheduler": _lcm,
    "CogVideoXDDIMScheduler": _cogvideox_ddim,
    "CogVideoXDPMScheduler": _cogvideox_sde,
    "DPMSolverMultistepScheduler": _multistep,
    "UniPCMultistepScheduler": _unipc,
}


CLASSES = {
    "ddim": "DDIMScheduler",
    "ddim_constant_stride": "DDIMScheduler",
    "pndm": "PNDMScheduler",
    "euler": "EulerDiscreteScheduler",
    "ancestral": "EulerAncestralDiscreteScheduler",
    "latent_consistency": "LCMScheduler",
    "cogvideox_sde": "CogVideoXDPMScheduler",
    "dpmpp_2m": "DPMSolverMultistepScheduler",
    "dpmpp_2m_sde": "DPMSolverMultistepScheduler",
    "unipc": "UniPCMultistepScheduler",
}
"""A class for every sampler that some class has."""


def _check_clipping(config: ForeignConfig, by_default: bool) -> None:
    """Latents are never clipped here."""
    if config.take("clip_sample", by_default):
        raise ValueError(f"{config.where}: got clip_sample=True, expected False")
    config.expect(thresholding=False)
    for name in ("dynamic_thresholding_ratio", "sample_max_value", "clip_sample_range"):
        config.take(name, None)


def _table(config: ForeignConfig) -> tuple[NoiseSchedule, Target, Preconditioning]:
    """Schedule, target and preconditioning of networks that are told an index."""
    usual = BETAS_OF_CLASSES.get(str(config.data["_class_name"]), (0.0001, 0.02, "linear"))
    start, end = config.take("beta_start", usual[0]), config.take("beta_end", usual[1])
    count = config.take("num_train_timesteps", 1000)
    config.expect(trained_betas=None)
    kind = config.take("beta_schedule", usual[2])
    if kind not in BETAS:
        raise ValueError(
            f"{config.where}: got beta_schedule={kind!r}, expected one of {', '.join(BETAS)}"
        )
    schedule: NoiseSchedule = DDPMTable(BETAS[kind], start, end, count)
    if usual_shift := SHIFTS.get(str(config.data["_class_name"])):
        schedule = SNRShifted(schedule, config.take("snr_shift_scale", usual_shift))
    if config.take("rescale_betas_zero_snr", False):
        schedule = ZeroTerminalSNR(schedule)
    prediction = config.take("prediction_type", "epsilon")
    if prediction not in TARGETS:
        raise ValueError(
            f"{config.where}: got prediction_type={prediction!r}, expected one of "
            f"{', '.join(TARGETS)}"
        )
    return schedule, TARGETS[prediction], DiscreteTimesteps(count)


def _grid(
    config: ForeignConfig, usual: str, ends_clean: bool = True, spare: int = 0
) -> tuple[str, dict[str, float]]:
    """Name and arguments of the time grid."""
    name = config.take("timestep_spacing", usual)
    arguments: dict[str, float] = {"num_timesteps": config.take("num_train_timesteps", 1000)}
    offset = config.take("steps_offset", 0)
    if not ends_clean:
        arguments["ends_clean"] = False
    if name == "leading":
        arguments["offset"] = offset
    elif name not in ("trailing", "linspace"):
        raise ValueError(
            f"{config.where}: got timestep_spacing={name!r}, expected leading, trailing or linspace"
        )
    if spare and name != "trailing":
        arguments["spare"] = spare
    return name, arguments
