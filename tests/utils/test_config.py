"""What a description may build: classes of the package whose arguments are known, nothing else."""

import pytest

from vdm.autoencoder.vae import VideoVAE
from vdm.diffusion.schedules import LinearPath
from vdm.diffusion.shifted_schedules import Shifted
from vdm.utils.config import build, describe


def test_dataclasses_and_configurable_classes_are_built():
    assert build(describe(Shifted(LinearPath(), 3.0))) == Shifted(LinearPath(), 3.0)
    vae = VideoVAE(3, (4, 6), ((1, 2, 2),), (1, 1), (1, 1))
    assert describe(build(describe(vae))) == describe(vae)


@pytest.mark.parametrize(
    "path",
    [
        "vdm.cli.main",  # a function
        "vdm.data.real_clips.fetch",
        "vdm.utils.video_reader.Fraction",  # a class from elsewhere
        "vdm.utils.video_io.Path",
        "vdm.utils.video_io.os",
        "vdm.layers.attention.Attention",  # a class whose arguments nobody remembers
        "vdm.diffusion.schedules.NoiseSchedule",
    ],
)
def test_nothing_else_in_the_package_is_called(path):
    with pytest.raises(ValueError, match=f"got class path '{path}', expected a class of the vdm"):
        build({"class_path": path})


def test_a_subclass_is_marked_by_itself():
    class Custom(VideoVAE):
        __module__ = "vdm.autoencoder.custom"

    with pytest.raises(TypeError, match="cannot describe a Custom"):
        describe(Custom(3, (4, 6), ((1, 2, 2),), (1, 1), (1, 1)))


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ({"class_path": "os.system"}, "got class path 'os.system'"),
        ({"class_path": "vdm.diffusion.schedules.Missing"}, "does not exist"),
        ({"class_path": "vdm.nowhere.Missing"}, "does not exist"),
        (
            {"class_path": "vdm.diffusion.schedules.EDM", "init_args": {"sigma": 3.0}},
            "unexpected keyword argument 'sigma'",
        ),
    ],
)
def test_a_wrong_description_is_refused(description, message):
    with pytest.raises(ValueError, match=message):
        build(description)
