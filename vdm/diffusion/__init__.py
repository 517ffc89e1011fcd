"""The diffusion core: schedules, targets, loss, guidance and samplers, for any network."""

from vdm.diffusion.denoiser import Denoiser
from vdm.diffusion.discrete_schedules import DDPMTable
from vdm.diffusion.losses import DenoisingLoss
from vdm.diffusion.schedules import (
    EDM,
    Cosine,
    LinearPath,
    NoiseSchedule,
    ScaledLinear,
    VPLinear,
)
from vdm.diffusion.shifted_schedules import Faded, Shifted, SNRShifted, ZeroTerminalSNR, shift_for
from vdm.diffusion.targets import X0, Eps, Target, V, Velocity

__all__ = [
    "EDM",
    "X0",
    "Cosine",
    "DDPMTable",
    "Denoiser",
    "DenoisingLoss",
    "Eps",
    "Faded",
    "LinearPath",
    "NoiseSchedule",
    "SNRShifted",
    "ScaledLinear",
    "Shifted",
    "Target",
    "V",
    "VPLinear",
    "Velocity",
    "ZeroTerminalSNR",
    "shift_for",
]
