"""From a model on disk to clips: loading, generating, planning."""

from vdm.pipelines.clip import Clip
from vdm.pipelines.generate import Generator, sample_to_folder
from vdm.pipelines.load import load

__all__ = ["Clip", "Generator", "load", "sample_to_folder"]
