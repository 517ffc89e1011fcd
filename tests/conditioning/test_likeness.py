"""How like a picture frames are to be: the published table."""

import pytest
import torch
from diffusers.pipelines.deprecated.pia.pipeline_pia import prepare_mask_coef_by_statistics

from vdm.conditioning.likeness import LIKENESS, Likeness


@pytest.mark.parametrize("motion", range(len(LIKENESS)))
@pytest.mark.parametrize("num_frames", [3, 16, 21])
def test_masks_are_those_of_the_reference(motion, num_frames):
    expected = prepare_mask_coef_by_statistics(num_frames, 0, motion)
    assert torch.equal(Likeness().mask(num_frames, motion), torch.tensor(expected))
    assert torch.equal(Likeness(motion).mask(num_frames), torch.tensor(expected))


@pytest.mark.parametrize("motion", [-1, 9])
def test_there_is_no_other_kind_of_motion(motion):
    with pytest.raises(ValueError, match=f"got motion_bucket={motion}, expected 0 to 8"):
        Likeness().mask(4, motion)
