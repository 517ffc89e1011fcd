"""Pictures of the arms side by side."""

import numpy as np
from PIL import Image

from vdm.comparison.sheet import sheet_path, tile, write_sheets


def test_a_row_holds_frames_of_one_clip_from_the_first_to_the_last():
    clips = np.zeros((2, 7, 5, 6, 3), np.uint8)
    clips += np.arange(7, dtype=np.uint8)[:, None, None, None]
    clips[1] += 100
    made = tile(clips)
    assert made.shape == (2 * 5 + 2, 4 * 6 + 3 * 2, 3)
    assert [made[0, 8 * k, 0] for k in range(4)] == [0, 2, 4, 6]
    assert [made[7, 8 * k, 0] for k in range(4)] == [100, 102, 104, 106]
    assert (made[5:7] == 255).all()


def test_sheets_of_the_arms_that_have_one_become_one_picture(experiment):
    assert write_sheets(experiment) is None
    path = sheet_path(experiment, "wide")
    path.parent.mkdir()
    Image.fromarray(np.full((80, 40, 3), 200, np.uint8)).save(path)
    made = write_sheets(experiment)
    assert made == experiment.folder / "samples.png"
    before = made.read_bytes()
    assert write_sheets(experiment).read_bytes() == before
