"""One schedule of every kind, and of every way to make one from another."""

from vdm.diffusion.discrete_schedules import DDPMTable
from vdm.diffusion.schedules import EDM, Cosine, LinearPath, ScaledLinear, VPLinear
from vdm.diffusion.shifted_schedules import Faded, Shifted, SNRShifted, ZeroTerminalSNR

COGVIDEOX = ZeroTerminalSNR(SNRShifted(DDPMTable(), 3.0))
SCHEDULES = [
    LinearPath(),
    Cosine(),
    EDM(),
    VPLinear(),
    ScaledLinear(),
    DDPMTable("linear", 0.0001, 0.02),
    DDPMTable("scaled_linear"),
    DDPMTable("squaredcos"),
    Shifted(LinearPath(), 3.0),
    Shifted(DDPMTable(), 0.5),
    SNRShifted(LinearPath(), 2.0),
    SNRShifted(DDPMTable(), 3.0),
    ZeroTerminalSNR(VPLinear()),
    ZeroTerminalSNR(Cosine()),
    COGVIDEOX,
    Faded(DDPMTable(), 0.3),
    Faded(Cosine(), 0.7, 0.4),
]
