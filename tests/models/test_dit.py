import pytest
import torch
from jsonargparse import ArgumentError, ArgumentParser

from vdm.layers.factorization import Joint, Spatial, Temporal
from vdm.layers.position_rules import CountedRotary, SecondsRotary, SpaceThenTime
from vdm.models.dit import VideoDiT
from vdm.models.dit_blocks import BlockOptions, CrossOptions
from vdm.types import Conditioning
from vdm.utils.config import build, describe

B, C, T, H, W, N, TEXT = 2, 3, 5, 4, 6, 7, 10
FACTORIZED = [Spatial(), Temporal()]
CAUSAL = {
    "joint": [Joint(is_causal=True)],
    "joint window": [Joint(is_causal=True, window=2)],
    "factorized": [Spatial(), Temporal(is_causal=True)],
    "factorized window": [Spatial(), Temporal(is_causal=True, window=3)],
}


def network(seed=0, **arguments):
    """A tiny network whose branches are all open."""
    torch.manual_seed(seed)
    net = VideoDiT(C, **{"dim": 36, "depth": 2, "num_heads": 3} | arguments).eval()
    for parameter in net.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return net


def texts():
    valid = torch.ones(B, N)
    valid[1, 4:] = 0
    return {"text": torch.randn(B, N, TEXT), "text_mask": valid}


@pytest.fixture
def x():
    return torch.randn(B, C, T, H, W)


@pytest.fixture
def c_noise():
    return 1000 * torch.rand(B)


@pytest.mark.parametrize("factorization", [[Joint()], FACTORIZED, *CAUSAL.values()], ids=str)
def test_the_prediction_has_the_shape_of_the_latents(x, c_noise, factorization):
    net = network(factorization=factorization)
    assert net(x, c_noise, Conditioning()).shape == x.shape


@pytest.mark.parametrize("modulation", ["single", "per_block"])
def test_a_new_network_predicts_zero_and_can_learn(x, c_noise, modulation):
    net = VideoDiT(C, 36, 2, 3, text_dim=TEXT, block=BlockOptions(modulation=modulation))
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-2)
    cond = Conditioning(**texts())
    assert not net(x, c_noise, cond).any()
    for _ in range(4):
        optimizer.zero_grad()
        (net(x, c_noise, cond) - x).square().mean().backward()
        optimizer.step()
    assert all(p.grad is not None and p.grad.any() for p in net.parameters())


def test_new_blocks_are_the_identity(x):
    net = VideoDiT(C, 36, 4, 3, factorization=FACTORIZED)
    seen = []
    for block in net.blocks:
        block.register_forward_hook(lambda module, given, out: seen.append((given[0], out)))
    net(x, torch.zeros(B), Conditioning())
    assert all(torch.equal(before, after) for before, after in seen)
    assert len(seen) == 4


def test_everything_that_it_is_told_makes_a_difference(x, c_noise):
    net = network(text_dim=TEXT, pooled_dim=8, num_labels=4, scalars=["fps", "guidance"])
    cond = Conditioning(
        **texts(),
        pooled_text=torch.randn(B, 8),
        label=torch.tensor([0, 1]),
        fps=torch.full((B,), 8.0),
        guidance=torch.full((B,), 4.0),
        given=torch.randn(B, C, T, H, W),
        given_mask=torch.ones(B, 1, T, H, W),
        token_times=torch.rand(B, T),
    )
    before = net(x, c_noise, cond)
    for name, value in cond.present().items():
        changed = cond.replace(**{name: 1 - value})
        assert not torch.allclose(net(x, c_noise, changed), before), name
    assert not torch.allclose(net(x, c_noise / 2, cond.replace(token_times=None)), before)


def test_padding_of_the_text_is_not_seen(x, c_noise):
    net = network(text_dim=TEXT)
    cond = Conditioning(**texts())
    noise = torch.randn(B, N, TEXT) * (1 - cond.text_mask)[:, :, None]
    torch.testing.assert_close(
        net(x, c_noise, cond), net(x, c_noise, cond.replace(text=cond.text + noise))
    )


def test_no_given_frames_is_the_same_as_none_marked(x, c_noise):
    net = network()
    marked = Conditioning(given=torch.zeros_like(x), given_mask=torch.zeros(B, 1, T, H, W))
    assert torch.equal(net(x, c_noise, Conditioning()), net(x, c_noise, marked))
    hint = marked.replace(given=torch.randn_like(x))
    assert not torch.equal(net(x, c_noise, marked), net(x, c_noise, hint))


def test_no_label_is_the_label_none(x, c_noise):
    net = network(num_labels=4)
    none = Conditioning(label=torch.full((B,), 4))
    assert torch.equal(net(x, c_noise, Conditioning()), net(x, c_noise, none))


def test_equal_token_times_are_the_noise_level(x, c_noise):
    net = network()
    times = (c_noise / 1000)[:, None].expand(-1, T)
    torch.testing.assert_close(
        net(x, c_noise, Conditioning()),
        net(x, torch.zeros(B), Conditioning(token_times=times)),
        rtol=1e-4,
        atol=1e-4,
    )


def test_noise_levels_per_frame_are_taken_as_they_are(x, c_noise):
    net, times = network(), torch.rand(B, T)
    told = net(x, c_noise, Conditioning(token_times=times))
    assert torch.equal(net(x, 1000 * times, Conditioning()), told)
    once = net(x, c_noise, Conditioning())
    torch.testing.assert_close(net(x, c_noise[:, None].expand(-1, T), Conditioning()), once)
    with pytest.raises(ValueError, match="got c_noise for 4 frames and patches of 1 frames"):
        net(x, 1000 * times[:, :4], Conditioning())
    with pytest.raises(ValueError, match="and patches of 5 frames, expected 1 frames and patches"):
        network(patch_size=(5, 2, 2))(x, 1000 * times, Conditioning())


def test_without_absolute_positions_only_distances_in_time_count(c_noise):
    frame = torch.randn(B, C, 1, H, W)
    still = frame.expand(-1, -1, T, -1, -1)
    for kind, moves in (("rotary", False), ("absolute", True)):
        net = network(factorization=FACTORIZED, block=BlockOptions(time_positions=kind))
        pred = net(still, c_noise, Conditioning())
        same = torch.allclose(pred[:, :, :1].expand_as(pred), pred, rtol=0, atol=1e-4)
        assert same != moves
        flat = net(torch.ones_like(still), c_noise, Conditioning())
        assert not torch.allclose(flat[..., :2, :2], flat[..., -2:, -2:], atol=1e-4)  # places
    with pytest.raises((ValueError, TypeError), match="time_positions"):
        BlockOptions(time_positions="none")


@pytest.mark.parametrize(
    ("factorization", "time_positions", "is_endless"),
    [
        (CAUSAL["factorized window"], "rotary", True),
        (CAUSAL["joint window"], "rotary", True),
        (CAUSAL["factorized window"], "absolute", False),
        (CAUSAL["factorized"], "rotary", False),
        ([Spatial(), Temporal(window=2)], "rotary", False),
    ],
)
def test_a_network_is_endless_if_far_into_a_clip_all_is_as_in_training(
    factorization, time_positions, is_endless
):
    net = network(factorization=factorization, block=BlockOptions(time_positions=time_positions))
    assert net.is_endless == is_endless


def test_a_sample_does_not_depend_on_its_batch(x, c_noise):
    net = network(text_dim=TEXT, factorization=FACTORIZED)
    cond = Conditioning(**texts())
    whole = net(x, c_noise, cond)
    for k in range(B):
        one = slice(k, k + 1)
        alone = net(x[one], c_noise[one], cond.select(one))
        torch.testing.assert_close(whole[one], alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("surplus", "problem"),
    [
        ({"text": torch.zeros(B, N, TEXT)}, "VideoDiT does not read text; it reads: given"),
        ({"flow": torch.zeros(B, 2, T, H, W)}, "does not read flow"),
        ({"given": torch.zeros(B, C, T, H, W)}, "got one of given and given_mask, expected both"),
        ({"token_times": torch.zeros(B, T + 1)}, "got token_times for 6 frames"),
    ],
)
def test_conditioning_that_it_does_not_read_is_refused(x, c_noise, surplus, problem):
    with pytest.raises(ValueError, match=problem):
        network()(x, c_noise, Conditioning(**surplus))


@pytest.mark.parametrize(
    "arguments", [{"text_dim": TEXT}, {"pooled_dim": 8}, {"scalars": ["fps"]}], ids=str
)
def test_conditioning_that_it_needs_is_missed(x, c_noise, arguments):
    with pytest.raises(ValueError, match="VideoDiT needs "):
        network(**arguments)(x, c_noise, Conditioning())


def test_frames_cannot_be_given_to_a_network_without_the_channels(x, c_noise):
    net = network(frame_conditioning=False)
    assert net(x, c_noise, Conditioning()).shape == x.shape
    given = Conditioning(given=torch.zeros_like(x), given_mask=torch.zeros(B, 1, T, H, W))
    with pytest.raises(ValueError, match="does not read given, given_mask"):
        net(x, c_noise, given)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"factorization": []}, "got no factorization"),
        ({"num_heads": 7}, r"got num_heads=7, expected a divisor of 36, e\.g\. 6"),
        ({"num_heads": 12}, "expected an even number of at least 6"),
        ({"patch_size": (2, 2)}, r"got patch_size=\(2, 2\), expected \(t, h, w\)"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(arguments, problem):
    with pytest.raises(ValueError, match=problem):
        network(**arguments)


def test_latents_that_do_not_fit_are_refused(c_noise):
    with pytest.raises(ValueError, match="got 4 channels, expected 3"):
        network()(torch.randn(B, 4, T, H, W), c_noise, Conditioning())
    with pytest.raises(ValueError, match="got height=5, expected a multiple of 2"):
        network()(torch.randn(B, C, T, 5, W), c_noise, Conditioning())


@pytest.mark.parametrize("factorization", CAUSAL.values(), ids=CAUSAL)
def test_no_frame_sees_the_future(c_noise, factorization):
    net = network(factorization=factorization)
    x = torch.randn(B, C, T, H, W, requires_grad=True)
    pred = net(x, c_noise, Conditioning())
    for k in range(T):
        (grad,) = torch.autograd.grad(pred[:, :, k].sum(), x, retain_graph=True)
        assert not grad[:, :, k + 1 :].any()
        assert grad[:, :, k].any()


@pytest.mark.parametrize("factorization", CAUSAL.values(), ids=CAUSAL)
@torch.no_grad()
def test_chunk_by_chunk_equals_the_masked_pass(x, c_noise, factorization):
    net = network(factorization=factorization, text_dim=TEXT).double()
    cond = Conditioning(
        **texts(), given=torch.randn_like(x), given_mask=torch.ones(B, 1, T, H, W)
    ).to(torch.float64)
    x = x.double()
    whole = net(x, c_noise, cond)
    for chunks in ((1,) * T, (2, 3), (T,)):
        start, cache, parts = 0, None, []
        for size in chunks:
            frames = slice(start, start + size)
            given, mask = cond.given[:, :, frames], cond.given_mask[:, :, frames]
            here = cond.replace(given=given, given_mask=mask)
            part, cache = net.step(x[:, :, frames], c_noise, here, cache)
            parts.append(part)
            start += size
        assert (torch.cat(parts, dim=2) - whole).abs().max() <= 1e-6 * whole.std()


def test_a_window_bounds_the_memory_of_a_stream(c_noise):
    net, cache, sizes = network(factorization=CAUSAL["factorized window"]), None, []
    for _ in range(9):
        _, cache = net.step(torch.randn(B, C, 1, H, W), c_noise, Conditioning(), cache)
        sizes.append(cache.num_bytes)
    assert cache.num_frames == 9
    assert len(set(sizes[1:])) == 1


def test_a_step_changes_neither_the_cache_nor_the_network(x, c_noise):
    net = network(factorization=CAUSAL["joint"])
    _, cache = net.step(x[:, :, :2], c_noise, Conditioning())
    first, _ = net.step(x[:, :, 2:], c_noise, Conditioning(), cache)
    again, _ = net.step(x[:, :, 2:], c_noise, Conditioning(), cache)
    assert torch.equal(first, again)


def test_a_network_that_sees_the_future_has_no_steps(x, c_noise):
    with pytest.raises(ValueError, match="expected causal factorizations"):
        network(factorization=FACTORIZED).step(x, c_noise, Conditioning())


@pytest.mark.parametrize("patch_size", [(1, 2, 2), (5, 1, 3), (1, 4, 1)])
def test_patches_may_have_any_size(x, c_noise, patch_size):
    assert network(patch_size=patch_size)(x, c_noise, Conditioning()).shape == x.shape


def test_checkpointing_changes_no_gradient(x, c_noise):
    grads = []
    for recompute in (False, True):
        net = network(block=BlockOptions(gradient_checkpointing=recompute)).train()
        net(x, c_noise, Conditioning()).square().sum().backward()
        grads.append([p.grad for p in net.parameters()])
    torch.testing.assert_close(*grads)


def test_deterministic_in_eval(x, c_noise):
    net = network()
    assert torch.equal(net(x, c_noise, Conditioning()), net(x, c_noise, Conditioning()))


def test_half_precision_stays_half(x, c_noise):
    net = network(text_dim=TEXT, pooled_dim=8, scalars=["fps"])
    cond = Conditioning(**texts(), pooled_text=torch.randn(B, 8), fps=torch.ones(B))
    full = net(x, c_noise, cond)
    half = net.bfloat16()(x.bfloat16(), c_noise, cond.to(torch.bfloat16))
    assert half.dtype == torch.bfloat16
    assert (half - full).norm() < 0.1 * full.norm()


def test_runs_without_weights_on_the_meta_device():
    with torch.device("meta"):
        net, x = VideoDiT(C, 36, 2, 3, factorization=FACTORIZED), torch.empty(B, C, T, H, W)
        assert net(x, torch.empty(B), Conditioning()).shape == x.shape


def test_sharing_the_modulation_saves_weights():
    sizes = [
        sum(p.numel() for p in VideoDiT(C, 36, 8, 3, block=BlockOptions(modulation=m)).parameters())
        for m in ("single", "per_block")
    ]
    assert sizes[0] < 0.75 * sizes[1]


def test_a_network_is_written_down_and_built_again(x, c_noise):
    net = network(factorization=[Spatial(), Temporal(True, 2)], scalars=["fps"])
    again = build(describe(net)).eval()
    again.load_state_dict(net.state_dict())
    cond = Conditioning(fps=torch.ones(B))
    assert torch.equal(again(x, c_noise, cond), net(x, c_noise, cond))


def test_a_network_is_configured_from_yaml(x, c_noise):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--network", type=torch.nn.Module)
    text = """
    network:
      class_path: vdm.models.dit.VideoDiT
      init_args:
        in_channels: 3
        dim: 36
        depth: 2
        num_heads: 3
        patch_size: [1, 2, 2]
        factorization:
          - class_path: vdm.layers.factorization.Spatial
          - class_path: vdm.layers.factorization.Temporal
            init_args: {is_causal: true, window: 3}
        block: {feedforward: swiglu, qk_norm: {kind: rms}}
    """
    net = parser.instantiate(parser.parse_string(text)).network
    assert net.blocks[1].factorization == Temporal(is_causal=True, window=3)
    assert net(x, c_noise, Conditioning()).shape == x.shape
    with pytest.raises(ArgumentError, match="'windov' is not accepted"):
        parser.parse_string(text.replace("window", "windov"))


PUBLISHED = BlockOptions(
    cross=CrossOptions(norm=False, in_temporal=False, projects_text=True),
    positions=SpaceThenTime(3),
    predicts_variance=True,
)


def test_published_options_change_what_they_say(x, c_noise):
    net = network(factorization=FACTORIZED, text_dim=TEXT, block=PUBLISHED)
    cond = Conditioning(**texts())
    base = net(x, c_noise, cond)
    assert base.shape == x.shape
    assert [block.cross_attention is None for block in net.blocks] == [False, True]
    assert (
        net.blocks[0].cross_attention.to_k.in_features == net.dim == net.text_embed.fc2.out_features
    )
    assert net.final.linear.out_features == 2 * 4 * C
    assert not torch.allclose(net(x, c_noise, cond.replace(text=cond.text + 1)), base)
    for axis in (2, 3, 4):
        turned = net(x.roll(2, axis), c_noise, cond)
        assert not torch.allclose(turned, base.roll(2, axis), atol=1e-4)
    plain = network(factorization=FACTORIZED, text_dim=TEXT)
    assert [block.cross_attention is None for block in plain.blocks] == [False, False]
    assert plain.text_embed is None


def test_rotations_may_be_all_that_tells_places(x, c_noise):
    net = network(dim=48, block=BlockOptions(positions=CountedRotary()))
    turned = net(x.roll(2, 4), c_noise, Conditioning())
    assert not torch.allclose(turned, net(x, c_noise, Conditioning()).roll(2, 4), atol=1e-4)


def test_positions_of_one_clip_do_not_go_on(x, c_noise):
    net = network(
        factorization=CAUSAL["joint"], dim=48, block=BlockOptions(positions=CountedRotary())
    )
    with pytest.raises(ValueError, match=r"got CountedRotary\(\), expected positions that go on"):
        net.step(x, c_noise, Conditioning())


def test_rotations_of_single_clips_are_for_tokens_that_all_attend_together():
    block = BlockOptions(positions=SecondsRotary(2))
    with pytest.raises(ValueError, match=r"got Spatial\(\) with SecondsRotary.*expected Joint"):
        VideoDiT(C, 16, 2, 2, factorization=[Joint(), Spatial()], block=block)
