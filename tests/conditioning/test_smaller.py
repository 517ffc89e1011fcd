"""A smaller clip is shown with the noise of an entry of a table."""

import diffusers
import pytest
import torch

from vdm.conditioning.smaller import SmallerClip
from vdm.diffusion.discrete_schedules import DDPMTable

TABLE = DDPMTable("scaled_linear", 0.0001, 0.02)


def test_its_noise_is_that_of_the_schedulers_entry():
    video, eps = torch.randn(2, 2, 3, 5, 4, 6)
    theirs = diffusers.DDPMScheduler(
        beta_start=0.0001, beta_end=0.02, beta_schedule="scaled_linear"
    )
    for level in ((50, 50), (0, 999)):
        shown = SmallerClip(TABLE).show(video, torch.tensor(level).float(), eps)
        expected = theirs.add_noise(video, eps, torch.tensor(level))
        torch.testing.assert_close(shown, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("wrong", [{"level": -1}, {"factor": 1}, {"max_frames": 0}])
def test_numbers_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError, match="expected at least 0, 2 and 1"):
        SmallerClip(TABLE, **wrong)
