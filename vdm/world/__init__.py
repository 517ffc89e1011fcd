"""The embedded world ``moving-shapes``, version 1: endless captioned clips with exact ground truth.

NumPy only: data, metrics and text conditioning all build on it.
"""

from vdm.world.agreement import Agreement, agreement
from vdm.world.attributes import VERSION
from vdm.world.captions import WORDS, Caption, caption_of, parse_caption, print_caption
from vdm.world.ground_truth import GroundTruth, ground_truth
from vdm.world.realise import scene_from_caption
from vdm.world.render import render
from vdm.world.sampling import SPLITS, num_frames_of, scene
from vdm.world.scenes import Scene

__all__ = [
    "SPLITS",
    "VERSION",
    "WORDS",
    "Agreement",
    "Caption",
    "GroundTruth",
    "Scene",
    "agreement",
    "caption_of",
    "ground_truth",
    "num_frames_of",
    "parse_caption",
    "print_caption",
    "render",
    "scene",
    "scene_from_caption",
]
