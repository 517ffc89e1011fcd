"""A run goes through the same batches however it is cut up, and however many workers read."""

from itertools import islice

import lightning as L
import pytest
import torch
from jsonargparse import ArgumentParser
from torch import nn

from vdm.data.batches import BatchesModule
from vdm.data.datamodules import (
    RealLatents,
    RealVideos,
    ShapesClips,
    ShapesLatents,
    ShapesSpec,
    VideoFolderClips,
)
from vdm.data.datasets import ClipDataset
from vdm.data.latent_view import LatentView

TINY = ShapesSpec(num_train=7, num_val=3, size=16, num_frames=4)


class Encoder(nn.Module):
    """Shrinks space by two; the width of a frame stays visible in the latents."""

    def __init__(self):
        super().__init__()
        self.mix = nn.Conv3d(3, 5, (1, 2, 2), (1, 2, 2))

    def encode(self, video):
        return self.mix(video)


class Counted(BatchesModule):
    """Eleven clips that cost nothing."""

    def __init__(self, source, batch_size=3, **kwargs):
        super().__init__(batch_size, **kwargs)
        self.source = source

    def train_dataset(self):
        return ClipDataset(self.source, lambda caption, index, epoch: f"{caption} pass {epoch}")

    def val_dataset(self):
        return ClipDataset(self.source)


class Recorder(L.LightningModule):
    """Notes what it is trained on."""

    def __init__(self, touch_estimate=False):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.touch_estimate = touch_estimate
        self.seen = []

    def training_step(self, batch, _):
        self.seen.append((batch["index"].tolist(), batch["caption"]))
        return (self.weight * batch["video"].mean()).sum()

    def validation_step(self, batch, _):
        return None

    def configure_optimizers(self):
        if self.touch_estimate:
            assert self.trainer.estimated_stepping_batches > 0
        return torch.optim.SGD(self.parameters(), 0.1)


def train(data, steps, folder, resume=None, touch=False, **kwargs):
    """Train up to ``steps``; returns what was seen and a checkpoint."""
    module = Recorder(touch)
    trainer = L.Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **kwargs,
    )
    trainer.fit(module, data, ckpt_path=resume, weights_only=False if resume else None)
    path = folder / f"{steps}.ckpt"
    trainer.save_checkpoint(path)
    return module.seen, path


@pytest.fixture
def make_data(make_clips):
    return lambda **kwargs: Counted(make_clips(), **kwargs)


def test_batch_is_a_record(make_data):
    batch = next(iter(make_data().train_dataloader()))
    assert set(batch) == {"video", "caption", "index"}
    assert batch["video"].shape == (3, 3, 5, 4, 6)
    assert batch["video"].dtype == torch.float32
    assert batch["index"].dtype == torch.int64
    assert batch["caption"] == [f"clip {i} pass 0" for i in batch["index"].tolist()]


@pytest.mark.parametrize("touch", [False, True], ids=["plain", "estimate touched"])
@pytest.mark.parametrize(
    "options",
    [{}, {"accumulate_grad_batches": 2}, {"limit_train_batches": 4, "max_epochs": -1}],
    ids=lambda options: next(iter(options), "endless"),
)
def test_resumed_run_sees_what_an_uninterrupted_one_sees(make_data, tmp_path, touch, options):
    whole, _ = train(make_data(), 6, tmp_path, touch=touch, **options)
    first, checkpoint = train(make_data(), 3, tmp_path, touch=touch, **options)
    rest, _ = train(make_data(), 6, tmp_path, resume=checkpoint, touch=touch, **options)
    assert first + rest == whole


def test_workers_change_nothing(make_data, tmp_path):
    alone, _ = train(make_data(), 5, tmp_path)
    helped, _ = train(make_data(num_workers=2), 5, tmp_path)
    assert helped == alone


def test_other_batches_than_those_of_the_checkpoint_are_refused(make_data, tmp_path):
    _, checkpoint = train(make_data(), 2, tmp_path)
    with pytest.raises(ValueError, match=r"batch_size=4, expected 3"):
        train(make_data(batch_size=4), 4, tmp_path, resume=checkpoint)


@pytest.mark.parametrize("change", [{"num_ranks": 2}, {"num_samples": 12}, {"seed": 1}])
def test_what_a_checkpoint_counts_must_be_the_same(make_data, change):
    data = make_data()
    data.train_dataloader()
    stored = data.state_dict()
    (name,) = change

    def go_on():
        again = make_data()
        again.load_state_dict({**stored, **change})
        again.train_dataloader()

    with pytest.raises(ValueError, match=rf"{name}=\d+, expected {change[name]} as in the"):
        go_on()
    older = make_data()
    older.load_state_dict({"position": 2, "batch_size": 3, "seed": 0})
    assert older.train_dataloader().batch_sampler.start() == 2


def test_validation_goes_through_all_clips_in_order(make_data):
    batches = list(make_data().val_dataloader())
    assert [i for batch in batches for i in batch["index"].tolist()] == list(range(11))


def test_misuse_is_refused(make_data):
    with pytest.raises(ValueError, match="batch_size=0"):
        make_data(batch_size=0)


def test_world_clips_come_in_batches(tmp_path):
    data = ShapesClips(TINY, batch_size=2, cache_dir=str(tmp_path))
    data.prepare_data()
    batches = list(islice(data.train_dataloader(), 4))
    assert batches[0]["video"].shape == (2, 3, 4, 16, 16)
    seen = [i for batch in batches for i in batch["index"].tolist()]
    assert sorted(seen[:7]) == list(range(7))
    captions = data.clips("train").captions
    assert batches[0]["caption"] == [captions[i] for i in seen[:2]]


def test_paraphrases_differ_between_passes_but_not_between_runs(tmp_path):
    def captions():
        data = ShapesClips(TINY, batch_size=7, paraphrase=True, cache_dir=str(tmp_path))
        passes = islice(data.train_dataloader(), 2)
        return [dict(zip(b["index"].tolist(), b["caption"], strict=True)) for b in passes]

    first, second = captions()
    assert first != second
    assert captions() == [first, second]


def test_world_latents_come_in_batches(tmp_path):
    encoder = Encoder()
    data = ShapesLatents(TINY, encoder, batch_size=3, cache_dir=str(tmp_path), dtype="float32")
    batch = next(iter(data.val_dataloader()))
    assert set(batch) == {"latents", "caption", "index", "fps"}
    clips = ShapesClips(TINY, batch_size=3, cache_dir=str(tmp_path))
    video = next(iter(clips.val_dataloader()))["video"]
    torch.testing.assert_close(batch["latents"], encoder.encode(video).detach())


def test_latents_are_encoded_by_the_module_that_is_trained(tmp_path):
    class Trained(Recorder):
        def __init__(self):
            super().__init__()
            self.autoencoder = Encoder()

        def training_step(self, batch, _):
            return (self.weight * batch["latents"].mean()).sum()

    data = ShapesLatents(TINY, batch_size=3, cache_dir=str(tmp_path))
    trainer = L.Trainer(
        max_steps=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Trained(), data)
    assert len(list(tmp_path.glob("latents-*"))) == 2


def test_latents_without_an_encoder_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no autoencoder"):
        ShapesLatents(TINY, cache_dir=str(tmp_path)).train_dataloader()


def test_mirrored_latents_are_trained_on_but_not_validated_on(tmp_path):
    data = ShapesLatents(TINY, Encoder(), cache_dir=str(tmp_path), mirror=True)
    assert len(data.latents("train")) > TINY.num_train
    assert len(data.latents("val")) == TINY.num_val


def test_encoder_can_be_handed_over(tmp_path):
    data = ShapesLatents(TINY, batch_size=3, cache_dir=str(tmp_path))
    data.use_autoencoder(Encoder())
    assert next(iter(data.train_dataloader()))["latents"].shape == (3, 5, 4, 8, 8)


def test_real_videos_come_in_batches(real_folder):
    data = RealVideos(str(real_folder), 9, 5, size=16, num_frames=4, batch_size=3)
    first = next(iter(data.train_dataloader()))
    assert first["video"].shape == (3, 3, 4, 16, 16)
    assert first["caption"] == ["", "", ""]
    assert [len(batch["index"]) for batch in data.val_dataloader()] == [3, 2]


def test_real_latents_come_in_batches(real_folder, tmp_path):
    videos = RealVideos(str(real_folder), 9, 5, size=16, num_frames=4)
    data = RealLatents(videos, Encoder(), batch_size=4, cache_dir=str(tmp_path / "cache"))
    assert next(iter(data.train_dataloader()))["latents"].shape == (4, 5, 4, 8, 8)
    assert sum(len(batch["index"]) for batch in data.val_dataloader()) == 5


def test_real_keyframes_come_with_hints(real_folder, tmp_path):
    videos = RealVideos(str(real_folder), 9, 5, size=16, num_frames=4)
    view = LatentView(stride=2, low_size=8)
    data = RealLatents(videos, Encoder(), 4, view=view, cache_dir=str(tmp_path / "cache"))
    first = next(iter(data.train_dataloader()))
    assert first["latents"].shape == first["hint"].shape == (4, 5, 2, 8, 8)
    assert not torch.equal(first["latents"], first["hint"])
    assert "fps" not in first


def test_windows_have_no_batches_of_their_own(real_folder):
    videos = RealVideos(str(real_folder), size=16, num_frames=4, batch_size=8)
    with pytest.raises(ValueError, match=r"got videos\.batch_size=8, nothing reads it"):
        RealLatents(videos)


@pytest.fixture
def folder(tmp_path, make_video):
    path = tmp_path / "clips"
    for number in range(4):
        make_video(path / f"{number}.mkv", num_frames=6 + number)
        (path / f"{number}.txt").write_text(f"clip {number}")
    (path / "bad.mp4").write_bytes(b"no video")
    return path


def test_video_files_come_in_batches(folder, tmp_path):
    cache = tmp_path / "cache"
    data = VideoFolderClips(
        str(folder), 0.3, size=24, num_frames=5, batch_size=2, cache_dir=str(cache)
    )
    batches = list(islice(data.train_dataloader(), 3))
    assert batches[0]["video"].shape == (2, 3, 5, 24, 24)
    trained = {caption for batch in batches for caption in batch["caption"]}
    held_out = {caption for batch in data.val_dataloader() for caption in batch["caption"]}
    assert trained | held_out <= {f"clip {number}" for number in range(4)}
    assert not trained & held_out
    (report,) = cache.glob("*/quarantine.txt")
    assert report.read_text().startswith("dropped  bad.mp4: not a readable video")


def test_training_without_validation(folder, tmp_path):
    data = VideoFolderClips(
        str(folder), 0.0, size=24, num_frames=5, batch_size=2, cache_dir=str(tmp_path / "cache")
    )
    assert data.val_dataloader() == []
    seen, _ = train(data, 2, tmp_path)
    assert len(seen) == 2


def test_arguments_can_be_set_one_by_one_in_a_config():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(L.LightningDataModule, "data")
    text = ["--data=vdm.data.datamodules.ShapesLatents", "--data.shapes.size=32"]
    config = parser.instantiate_classes(parser.parse_args([*text, "--data.batch_size=4"]))
    assert config.data.shapes == ShapesSpec(size=32)
    assert config.data.batch_size == 4
