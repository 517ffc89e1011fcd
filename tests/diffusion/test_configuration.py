"""Every part can be chosen in a config file, and objects can be written down and built again."""

import inspect

import pytest
from jsonargparse import ArgumentParser

from vdm.diffusion import frame_times, preconditioning, schedules, targets, times, weighting
from vdm.diffusion.discrete_schedules import DDPMTable
from vdm.diffusion.losses import DenoisingLoss
from vdm.diffusion.preconditioning import DiscreteTimesteps, EDMPreconditioning
from vdm.diffusion.schedules import EDM, LinearPath
from vdm.diffusion.shifted_schedules import SNRShifted, ZeroTerminalSNR
from vdm.diffusion.targets import X0, V, Velocity
from vdm.diffusion.times import EDMLogNormal, LogitNormal
from vdm.diffusion.weighting import EDMWeighting, MinSNR
from vdm.utils.config import build, describe

EDM_LOSS = DenoisingLoss(EDM(80.0), X0(), EDMPreconditioning(0.5), EDMLogNormal(), EDMWeighting())


def parse(**config):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(DenoisingLoss, "loss")
    return parser.instantiate_classes(parser.parse_object({"loss": config})).loss


def test_a_recipe_names_classes_and_arguments():
    loss = parse(
        schedule={"class_path": "LinearPath"},
        target="Velocity",
        times={"class_path": "LogitNormal", "init_args": {"std": 1.5}},
        weighting={"class_path": "MinSNR", "init_args": {"gamma": 3.0}},
    )
    assert loss == DenoisingLoss(
        LinearPath(), Velocity(), times=LogitNormal(std=1.5), weighting=MinSNR(3.0)
    )


def test_schedules_nest_in_a_recipe():
    table = {"class_path": "vdm.diffusion.DDPMTable", "init_args": {"betas": "scaled_linear"}}
    shifted = {"class_path": "SNRShifted", "init_args": {"base": table, "scale": 3.0}}
    loss = parse(
        schedule={"class_path": "ZeroTerminalSNR", "init_args": {"base": shifted}},
        target="V",
        preconditioning="DiscreteTimesteps",
    )
    assert loss.schedule == ZeroTerminalSNR(SNRShifted(DDPMTable(), 3.0))
    assert loss.target == V()
    assert loss.preconditioning == DiscreteTimesteps()


def test_noise_times_per_frame_nest_in_a_recipe():
    own = {"class_path": "IndependentTimes", "init_args": {"times": "Uniform"}}
    mixed = {"rules": ["CleanPast", own], "weights": [1, 2]}
    frame_times_ = {"class_path": "MixedTimes", "init_args": mixed}
    loss = parse(schedule="LinearPath", target="Velocity", frame_times=frame_times_)
    rules = [frame_times.CleanPast(), frame_times.IndependentTimes(times.Uniform())]
    assert loss.frame_times == frame_times.MixedTimes(rules, [1, 2])
    again = build(describe(loss)).frame_times
    assert list(again.rules) == rules


def test_an_argument_that_nobody_reads_is_refused():
    with pytest.raises(Exception, match="sigma_maximum"):
        parse(
            schedule={"class_path": "EDM", "init_args": {"sigma_maximum": 3.0}}, target="Velocity"
        )


def test_a_loss_is_written_down_and_built_again():
    assert build(describe(EDM_LOSS)) == EDM_LOSS


@pytest.mark.parametrize(
    ("module", "base"),
    [
        (schedules, schedules.NoiseSchedule),
        (targets, targets.Target),
        (preconditioning, preconditioning.Preconditioning),
        (times, times.TimeDistribution),
        (weighting, weighting.Weighting),
        (frame_times, frame_times.FrameTimes),
    ],
)
def test_parts_are_frozen_leaves_of_one_plain_abstract_class(module, base):
    leaves = [
        cls
        for _, cls in inspect.getmembers(module, inspect.isclass)
        if cls is not base and issubclass(cls, base)
    ]
    assert leaves
    assert not hasattr(base, "__dataclass_fields__")
    for cls in leaves:
        assert cls.__dataclass_params__.frozen
        assert cls.__bases__ == (base,)
