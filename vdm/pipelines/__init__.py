"""From a model on disk to clips: loading, generating, planning."""

from vdm.pipelines.cascade import Cascade
from vdm.pipelines.clip import Clip
from vdm.pipelines.generate import Generator
from vdm.pipelines.load import load
from vdm.pipelines.sample_files import sample_to_folder
from vdm.pipelines.stream import stream, stream_clip
from vdm.pipelines.stream_files import stream_to_folder

__all__ = [
    "Cascade",
    "Clip",
    "Generator",
    "load",
    "sample_to_folder",
    "stream",
    "stream_clip",
    "stream_to_folder",
]
