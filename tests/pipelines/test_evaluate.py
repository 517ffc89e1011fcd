import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from rich.console import Console
from tiny_model import make_parts

from vdm import world
from vdm.metrics.oracle import read_clips
from vdm.pipelines.evaluate import evaluate
from vdm.pipelines.evaluate_records import Records, pack, unpack
from vdm.pipelines.generate import Generator
from vdm.pretrained.layout import write_folder
from vdm.pretrained.parts import Envelope
from vdm.utils.video_io import write_video
from vdm.utils.video_reader import RESIZE_RULE

IID = "test-iid/1 object"


def draw(prompts: Sequence[str]) -> torch.Tensor:
    clips = np.stack([world.render(world.scene_from_caption(prompt)) for prompt in prompts])
    return torch.from_numpy(clips).movedim(-1, 1) / 255


class Perfect:
    """Draws exactly what it is told, and counts."""

    def __init__(self, autoencoder: torch.nn.Module | None = None, fail_after: int = 10**9) -> None:
        self.autoencoder, self.fail_after = autoencoder, fail_after
        self.seeds: list[int] = []

    def __call__(self, prompts: Sequence[str], *, seed: Sequence[int], steps: int = 25):
        if len(self.seeds) >= self.fail_after:
            raise RuntimeError("killed")
        assert len(seed) == len(prompts)
        self.seeds += seed
        return SimpleNamespace(frames=draw(prompts))


class Darker(torch.nn.Module):
    """An autoencoder that loses one level of 255, and two in the first frame."""

    def __init__(self) -> None:
        super().__init__()
        self.level = torch.nn.Parameter(torch.tensor(2 / 255))

    def encode(self, video: torch.Tensor) -> torch.Tensor:
        return video

    def decode(self, latents: torch.Tensor, num_frames: int) -> torch.Tensor:
        video = latents[:, :, :num_frames] - self.level
        return torch.cat([video[:, :, :1] - self.level, video[:, :, 1:]], 2)


def test_a_model_that_draws_what_it_is_told_scores_as_the_real_clips_do():
    result = evaluate(Perfect(), n=6, num_objects=(1, 2), data="test-iid", num_resamples=20)
    for data in (IID, "test-iid/2 objects"):
        whole = {
            source: named["caption-accuracy/whole"] for source, named in result.scores[data].items()
        }
        assert whole["generated"].value == whole["real"].value == 100
        assert whole["generated"].ceiling == 100
        assert whole["generated"].interval[0] < 100
        assert whole["swapped captions"].value == 0
        assert max(whole["static copy"].value, whole["shuffled frames"].value) < 50
        assert result.scores[data]["generated"]["caption-accuracy/persistence"].value == 100
        assert result.failures[data] == []
    assert whole["generated"].protocol == (
        "caption-accuracy/whole/16f@8/64/native/moving-shapes-1/test-iid:2-objects:start0/n6/"
        "oracle/r1"
    )


def test_a_model_that_ignores_its_prompt_fails_and_the_failures_are_named():
    def stubborn(prompts: Sequence[str], *, seed: Sequence[int]):
        return SimpleNamespace(frames=draw(["a red circle stays still"] * len(prompts)))

    result = evaluate(
        stubborn, n=6, num_objects=(1,), data=("test-iid", "test-comp"), baselines=False
    )
    generated = result.scores[IID]["generated"]
    assert generated["caption-accuracy/whole"].value == 0
    assert generated["caption-accuracy/count"].value == 100
    assert result.failures[IID][0]["failures"] >= 1
    assert set(result.scores[IID]) == {"real", "generated"}
    low, high = result.gaps[IID]["interval"]
    assert low < result.gaps[IID]["points"] == 0 < high


def test_the_autoencoder_has_its_own_scores_and_ceiling():
    model = Perfect(Darker())
    result = evaluate(model, n=3, num_objects=(1,), data="test-iid", baselines=False)
    named = result.scores[IID]["reconstructed"]
    assert named["caption-accuracy/whole"].value == 100
    assert named["reconstruction/psnr_first"].value == pytest.approx(20 * np.log10(255 / 2), 1e-2)
    assert named["reconstruction/psnr"].value > named["reconstruction/psnr_first"].value
    assert named["reconstruction/ssim"].value == pytest.approx(1, abs=0.01)
    only = evaluate(model, "test-iid", "reconstruction", n=3, num_objects=(1,))
    assert set(only.scores[IID]) == {"reconstructed"}


def test_motion_distance_and_jitter_stand_beside_the_real_clips():
    def still(prompts: Sequence[str], *, seed: Sequence[int]):
        return SimpleNamespace(frames=draw(prompts)[:, :, :1].repeat(1, 1, 16, 1, 1))

    data = "test-iid/2 objects"
    options = {"n": 3, "num_objects": (2,), "num_resamples": 5, "baselines": False}
    result = evaluate(still, "test-iid", ("fmd/flow", "jitter"), **options)
    named = result.scores[data]
    distance = named["generated"]["fmd/flow"]
    assert distance.rank_deficient
    saved = result.to_dict()["scores"][data]["generated"]["fmd/flow"]
    assert saved["rank_deficient"] is True
    assert saved["not_enough"] == distance.not_enough  # three clips do not tell the two apart
    assert "value" not in saved
    table = next(result.tables())
    console = Console(width=150, file=io.StringIO())
    console.print(table)
    printed = " ".join(console.file.getvalue().split())
    assert "not enough" in printed
    assert f"{distance.value:.3g}" not in printed
    assert distance.floor > 0
    assert distance.interval[0] <= distance.value <= distance.interval[1]
    assert distance.n_real == distance.n_gen == 3
    assert "fmd/flow_inf" not in named["generated"]  # too few clips to follow it
    assert named["generated"]["jitter/residual"].value == 0
    assert named["real"]["jitter/residual"].value > 0
    assert result.jitter_passes == {data: True}


def test_a_still_clip_wins_all_but_motion():
    def still(prompts: Sequence[str], *, seed: Sequence[int]):
        return SimpleNamespace(frames=draw(prompts)[:, :, :1].repeat(1, 1, 16, 1, 1))

    protocols = ("motion", "warp/self", "flicker")
    result = evaluate(still, "test-iid", protocols, n=2, num_objects=(2,), num_resamples=5)
    named = result.scores["test-iid/2 objects"]
    best = {"warp/self/error": 0, "flicker/difference": 0, "flicker/vbench": 100}
    for name, value in best.items():
        assert named["generated"][name].value == named["static copy"][name].value == value
        assert named["real"][name].value != value
    for name in ("motion/amount", "motion/dynamic"):
        assert named["generated"][name].value == 0 < named["real"][name].value
    assert named["real"]["motion/amount"].protocol.endswith("/n2/dis-medium/r1")
    assert [table.title for table in result.tables()] == ["motion", "warp/self", "flicker"]
    with pytest.raises(ValueError, match="got clips of 16 frames, expected at least 32 for 'dri"):
        evaluate(still, "test-iid", "drift", n=2)


def test_an_autoencoder_alone_is_scored_from_its_folder(tmp_path: Path):
    options = {"n": 2, "num_objects": (1,), "num_frames": 5, "height": 16, "width": 16}
    write_folder(make_parts(network=None, text_encoder=None), tmp_path / "model")
    result = evaluate(tmp_path / "model", "test-iid", **options)
    assert set(result.scores[IID]) > {"real", "reconstructed"}
    assert "generated" not in result.scores[IID]
    with pytest.raises(ValueError, match="'fd/transnet', expected a model that makes clips"):
        evaluate(tmp_path / "model", "test-iid", "fd/transnet", **options)


def test_a_generator_is_scored_with_its_own_shape_and_named_by_its_weights():
    generator = Generator(make_parts(envelope=Envelope((1, 7), (8.0, 8.0), (8, 16), (8, 32))))
    options = {"n": 2, "num_objects": (1,), "steps": 1, "height": 16, "width": 16}
    result = evaluate(generator, "test-iid", **options, batch_size=1)
    assert set(result.clamped[IID]) == {"generated", "reconstructed"}
    assert result.about["dtype"] == "float32"
    named = result.scores[IID]
    assert named["generated"]["caption-accuracy/whole"].n_gen == 2
    assert named["generated"]["caption-accuracy/whole"].protocol.split("/")[2:4] == ["5f@8", "16"]
    assert named["reconstructed"]["reconstruction/ssim"].value < 1
    assert result.about["model"] == "tiny"
    assert result.about["settings"] == {"steps": 1, "height": 16, "width": 16}
    assert result.about["config_sha256"]


def test_a_stopped_evaluation_goes_on_and_ends_the_same(tmp_path: Path):
    def scores(out: Path | None, model: Callable, n: int = 7) -> dict:
        options = {"n": n, "num_objects": (1,), "batch_size": 2, "baselines": False, "steps": 3}
        return evaluate(model, "test-iid", out=out, **options).to_dict()["scores"]

    with pytest.raises(RuntimeError, match="killed"):
        scores(tmp_path, Perfect(fail_after=4))
    with (tmp_path / "records.jsonl").open("a") as file:
        file.write('{"data": "test-i')  # as if killed while writing
    rest = Perfect()
    continued = scores(tmp_path, rest)
    whole = Perfect()
    assert continued == scores(None, whole)
    assert rest.seeds == whole.seeds[4:]
    assert json.loads((tmp_path / "scores.json").read_text())["scores"] == json.loads(
        json.dumps(continued)
    )
    more = Perfect()
    scores(tmp_path, more, n=9)
    assert len(more.seeds) == 2


def test_real_clips_that_were_measured_before_are_not_measured_again(tmp_path, monkeypatch):
    read = []

    def counting(clips):
        read.append(len(clips))
        return read_clips(clips)

    monkeypatch.setattr("vdm.pipelines.evaluate.read_clips", counting)
    options = {"n": 5, "num_objects": (1,), "baselines": False}
    evaluate(Perfect(), "test-iid", out=tmp_path / "a", steps=3, **options)
    assert sum(read) == 10
    again = {"out": tmp_path / "b", "known": tmp_path / "a", "seed": 1}
    second = evaluate(Perfect(), "test-iid", steps=4, **again, **options)
    assert sum(read) == 15
    alone = evaluate(Perfect(), "test-iid", steps=4, seed=1, **options)
    assert second.to_dict()["scores"] == alone.to_dict()["scores"]
    read.clear()
    evaluate(Perfect(), "test-iid", steps=4, known=tmp_path / "nowhere", **options)
    assert sum(read) == 10


def test_measurements_under_other_settings_are_not_mixed(tmp_path: Path):
    options = {"n": 2, "num_objects": (1,), "out": tmp_path, "baselines": False}
    evaluate(Perfect(), "test-iid", steps=3, **options)
    with pytest.raises(ValueError, match=r"settings\.steps=3"):
        evaluate(Perfect(), "test-iid", steps=4, **options)
    with pytest.raises(ValueError, match="seed=0"):
        evaluate(Perfect(), "test-iid", steps=3, seed=1, **options)
    (tmp_path / "records.jsonl").write_text("no json\n")
    with pytest.raises(ValueError, match="not a file of measurements"):
        Records(tmp_path / "records.jsonl", {})


def test_the_noise_of_a_clip_does_not_depend_on_the_batch():
    seeds = []
    for batch_size in (1, 3):
        model = Perfect()
        evaluate(model, "test-iid", n=3, num_objects=(1,), batch_size=batch_size, baselines=False)
        seeds.append(model.seeds)
    assert seeds[0] == seeds[1]
    assert len(set(seeds[0])) == 3


def test_a_folder_of_clips_is_scored_by_the_captions_beside_them(tmp_path: Path):
    captions = ["a red circle moves left", "a large blue square spins clockwise quickly"]
    for name, caption in zip("ab", captions, strict=True):
        clip = world.render(world.scene_from_caption(caption))
        write_video(clip, tmp_path / f"{name}.npz", 8.0, {"prompt": "a pink star grows"})
        (tmp_path / f"{name}.txt").write_text(caption + "\n")
    ((data, named),) = evaluate(tmp_path, n=5, baselines=False).scores.items()
    assert named["generated"]["caption-accuracy/whole"].value == 100
    assert named["generated"]["caption-accuracy/whole"].n_gen == 2
    assert named["real"]["caption-accuracy/whole"].value == 100
    assert f"moving-shapes-{world.VERSION}/{data}:start0" in (
        named["real"]["caption-accuracy/whole"].protocol
    )
    (tmp_path / "b.txt").unlink()
    ((other, noted),) = evaluate(tmp_path, n=5, baselines=False).scores.items()
    assert noted["generated"]["caption-accuracy/whole"].value == 50
    assert other != data


def test_real_video_is_reconstructed_from_a_folder(tmp_path: Path):
    clip = world.render(world.scene("val", 0, 0, 1), 80)
    write_video(clip, tmp_path / "clip.mkv", 8.0)
    result = evaluate(Perfect(Darker()), tmp_path, "reconstruction", n=3)
    score = result.scores[tmp_path.name]["reconstructed"]["reconstruction/psnr"]
    assert score.n_gen == 1
    assert f"/64/{RESIZE_RULE}/{tmp_path.name}@" in score.protocol
    other = tmp_path / "copy" / tmp_path.name
    other.mkdir(parents=True)
    write_video(clip, other / "clip.mkv", 8.0)
    with pytest.raises(ValueError, match="two data sets called"):
        evaluate(Perfect(Darker()), [tmp_path, other], "reconstruction", n=1)
    write_video(clip, tmp_path / "large.npz", 8.0)
    with pytest.raises(ValueError, match=r"large.npz: got frames of 80x80, expected 64x64"):
        evaluate(Perfect(Darker()), tmp_path, "reconstruction", n=3)


def test_clips_of_another_shape_than_the_data_are_refused():
    def short(prompts: Sequence[str], *, seed: Sequence[int]):
        return SimpleNamespace(frames=draw(prompts)[:, :, :8])

    with pytest.raises(ValueError, match=r"shape \(2, 8, 64, 64, 3\) from the model, expected"):
        evaluate(short, "test-iid", n=2, num_objects=(1,), baselines=False)
    with pytest.raises(ValueError, match="num_frames=16, expected 64 for test-long"):
        evaluate(short, "test-long", n=2)


def test_two_distances_share_clips_records_and_everything_but_their_features(tmp_path: Path):
    def scores() -> tuple[dict, list[int]]:
        model, protocols = Perfect(), ("fmd/flow", "fd/transnet")
        options = {"n": 8, "num_objects": (1,), "num_resamples": 5, "out": tmp_path}
        result = evaluate(model, "test-iid", protocols, baselines=False, **options)
        assert [table.title for table in result.tables()] == ["fmd/flow", "fd/transnet"]
        return result.scores[IID]["generated"], model.seeds

    named, seeds = scores()
    assert set(named) == {"fmd/flow", "fmd/flow_inf", "fd/transnet", "fd/transnet_inf"}
    score, limit = named["fd/transnet"], named["fd/transnet_inf"]
    rest = "16f@8/64/native+48x27-bilinear-antialias/moving-shapes-1/test-iid:1-object:start0/n8/r1"
    assert score.protocol == f"fd/transnet@a313d0b3/{rest}"
    assert limit.protocol == f"fd/transnet_inf@a313d0b3/{rest}"
    assert score.interval[0] <= score.value <= score.interval[1]
    assert 0.2 * score.floor < score.value < 5 * score.floor
    assert limit.floor != score.floor
    assert score.rank_deficient
    assert score.n_real == score.n_gen == len(seeds) == 8
    measured = [json.loads(line) for line in (tmp_path / "records.jsonl").open()][1:]
    assert len(measured) == 3 * 8  # generated, real, other real
    assert {len(row["measured"]["transnet"]) for row in measured} == {4780}
    assert scores() == (named, [])  # from the records alone, to the last digit

    score, limit = named["fmd/flow"], named["fmd/flow_inf"]
    # The same captions drawn anew: other places, the same motions.
    assert 0.2 * score.floor < score.value < 5 * score.floor
    assert limit.value != score.value
    assert limit.floor != score.floor
    assert "/flow_inf/" in limit.protocol


def test_too_few_real_clips_leave_a_distance_without_a_floor(tmp_path: Path):
    for index in range(2):
        scene = world.scene("test-iid", 0, index, 1)
        write_video(world.render(scene), tmp_path / f"{index}.npz", 8.0)
        (tmp_path / f"{index}.txt").write_text(world.print_caption(scene))
    options = {"n": 2, "num_resamples": 2, "baselines": False}
    result = evaluate(Perfect(), tmp_path, "fd/transnet", **options)
    (score,) = result.scores[tmp_path.name]["generated"].values()
    assert score.floor is None
    assert f"/{RESIZE_RULE}+48x27-bilinear-antialias/{tmp_path.name}@" in score.protocol
    assert score.protocol.endswith("/n2/same-captions/r1")


def test_features_come_back_bit_by_bit_and_from_older_files():
    row = np.random.default_rng(0).standard_normal(7).astype(np.float32)
    assert np.array_equal(unpack(pack(row)), row)
    assert np.array_equal(unpack(row.tolist()), row)


def test_weights_that_are_not_there_are_missed_before_any_work(tmp_path: Path):
    model = Perfect()
    with pytest.raises(FileNotFoundError, match="nowhere"):
        evaluate(model, protocols="fd/transnet", n=2, transnet_weights=tmp_path / "nowhere")
    assert model.seeds == []


def test_tables_and_json_hold_every_score(tmp_path: Path):
    result = evaluate(Perfect(Darker()), n=3, num_objects=(1,), out=tmp_path)
    console = Console(file=io.StringIO(), width=200)
    for table in result.tables():
        console.print(table)
    text = console.file.getvalue()
    for word in ("caption-accuracy", "generated", "swapped captions", "whole", "psnr", "100.0"):
        assert word in text
    saved = json.loads((tmp_path / "scores.json").read_text())
    whole = saved["scores"]["test-comp/1 object"]["generated"]["caption-accuracy/whole"]
    assert whole["n_gen"] == 3
    assert whole["interval"][0] < whole["value"]
    assert saved["about"]["model"] == "Perfect"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"protocols": "fvdd"}, "protocol 'fvdd', expected one of caption-accuracy"),
        ({"protocols": ()}, "no protocol"),
        ({"protocols": "reconstruction"}, "with an autoencoder"),
        ({"n": 1100, "data": ("test-comp", "test-comp")}, "two data sets called 'test-comp/1 ob"),
        ({"data": "test-idd"}, "data 'test-idd', expected a folder or one of"),
        ({"n": 0}, "n=0"),
        ({"n": 3000, "data": "test-comp"}, "at most 2048"),
        ({"n": 1, "protocols": "fmd/flow"}, "at least 2"),
        ({"n": 1, "protocols": "fd/transnet"}, "at least 2"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"num_objects": (4,)}, "num_objects=4"),
    ],
)
def test_impossible_wishes_are_refused_before_any_work(arguments, message):
    model = Perfect()
    with pytest.raises(ValueError, match=message):
        evaluate(model, **{"n": 2, **arguments})
    assert model.seeds == []


def test_what_is_no_folder_of_scorable_clips_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="holds no clip"):
        evaluate(tmp_path)
    clip = world.render(world.scene("val", 0, 0, 1))
    write_video(clip, tmp_path / "a.mkv", 8.0)
    with pytest.raises(ValueError, match="no caption"):
        evaluate(tmp_path, n=1)
    with pytest.raises(ValueError, match="finished clips"):
        evaluate(tmp_path, n=1, steps=5)
    write_video(clip, tmp_path / "b.mp4", 8.0)
    with pytest.raises(ValueError, match="lossy"):
        evaluate(tmp_path, n=1)
    with pytest.raises(FileNotFoundError):
        evaluate(tmp_path / "nowhere")
    with pytest.raises(TypeError, match="int"):
        evaluate(3)


def test_fvd_is_scored_like_the_other_distances(tmp_path: Path):
    options = {"n": 2, "num_objects": (1,), "num_resamples": 2, "baselines": False}
    result = evaluate(Perfect(), "test-iid", ("fvd", "fvd/ddof0", "kvd"), **options)
    named = result.scores[IID]["generated"]
    score, biased = named["fvd"], named["fvd/ddof0"]
    assert biased.protocol.endswith("/n2/ddof0/r1")
    assert biased.value < score.value
    assert named["kvd"].protocol.startswith("kvd/i3d-k400@af5c50f0/16f@8/")
    assert set(named) == {"fvd", "fvd/ddof0", "kvd"}
    head, *_, rest = score.protocol.partition("/16f")
    assert head == "fvd/i3d-k400@af5c50f0"
    assert rest.startswith("@8/64/native+224x224-bilinear/moving-shapes-1/")
    assert score.rank_deficient
    with pytest.raises(FileNotFoundError, match="nowhere"):
        evaluate(Perfect(), protocols="fvd", n=2, i3d_weights=tmp_path / "nowhere")
