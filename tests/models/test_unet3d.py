import pytest
import torch
from jsonargparse import ArgumentError, ArgumentParser

from vdm.layers.factorization import FirstAndPrevious, Joint, Spatial, Temporal
from vdm.layers.temporal import Additive, Fixed, Learned
from vdm.models.unet3d import LevelOptions, UNet3D
from vdm.models.unet3d_blocks import Heads, Signals, UNetOptions
from vdm.models.unet3d_temporal import (
    FactorizedConv,
    InterleavedBlocks,
    TemporalAttention,
    TemporalConvStack,
    TemporalResBlock,
    TemporalTransformer,
)
from vdm.types import Conditioning
from vdm.utils.config import build, describe

B, C, T, H, W, N, TEXT = 2, 3, 5, 4, 6, 7, 10
BLOCK = {"heads": Heads(dim=4), "num_groups": 2}
COUPLINGS = {
    "convolutions": [TemporalConvStack(depth=2, statistics="clip", blend=Learned())],
    "factorized": [FactorizedConv()],
    "residual": [TemporalResBlock(statistics="clip")],
    "attention": [TemporalTransformer(num_attentions=2, needs_attention=False)],
    "window": [TemporalTransformer(Temporal(window=2), blend=Fixed(0.25))],
    "joint": [TemporalTransformer(Joint(), positions="rotary")],
    "input": [TemporalTransformer(stages=["input"], heads=Heads(2, 6))],
    "interleaved": [InterleavedBlocks()],
    "guest": [TemporalAttention(has_bias=True)],
    "last guest": [TemporalAttention(positions="none", is_last=True)],
    "two": [TemporalConvStack(), TemporalTransformer()],
}
CAUSAL = {
    "convolutions": [TemporalConvStack(depth=2, is_causal=True)],
    "factorized": [FactorizedConv(is_causal=True)],
    "residual": [TemporalResBlock(is_causal=True)],
    "attention": [TemporalTransformer(Temporal(is_causal=True), needs_attention=False)],
    "window": [TemporalTransformer(Temporal(True, 2), positions="rotary", stages=["input", "up"])],
    "joint": [TemporalTransformer(Joint(is_causal=True))],
    "interleaved": [InterleavedBlocks(Temporal(True), blend=Additive())],
    "guest": [TemporalAttention(Temporal(True, 3), has_bias=True)],
    "two": [TemporalConvStack(is_causal=True), TemporalTransformer(Temporal(True, window=3))],
}


def fresh(**arguments):
    block = UNetOptions(**BLOCK | arguments.pop("block", {}))
    common = {"widths": (8, 12), "depth": 1, "attention": (0, 1, 1), "block": block}
    return UNet3D(C, **common | arguments)


def open_up(net):
    for parameter in net.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return net.eval()


def network(**arguments):
    """A tiny network whose branches are all open."""
    torch.manual_seed(0)
    return open_up(fresh(**arguments))


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


NONE = Conditioning()


SHAPES = [(temporal, (5, 3)) for temporal in COUPLINGS.values()]
SHAPES += [([], size) for size in ((4, 6), (5, 3), (1, 7))]


@pytest.mark.parametrize(("temporal", "size"), SHAPES, ids=[*COUPLINGS, "even", "odd", "flat"])
def test_the_prediction_has_the_shape_of_the_latents(c_noise, temporal, size):
    net = network(temporal=temporal, widths=(4, 8, 12), attention=(0, 1, 0, 1))
    x = torch.randn(B, C, T, *size)
    assert net(x, c_noise, NONE).shape == x.shape


@pytest.mark.parametrize("temporal", COUPLINGS.values(), ids=COUPLINGS)
def test_a_new_coupling_is_the_identity_and_can_learn(x, c_noise, temporal):
    alone, coupled = network(text_dim=TEXT), fresh(text_dim=TEXT, temporal=temporal)
    coupled.load_state_dict({**coupled.state_dict(), **alone.state_dict()})
    cond = Conditioning(**texts())
    expected = alone(x, c_noise, cond)
    torch.testing.assert_close(coupled(x, c_noise, cond), expected, rtol=0, atol=2e-5)
    optimizer = torch.optim.SGD(coupled.parameters(), lr=1e-2)
    for _ in range(3):
        optimizer.zero_grad()
        (coupled(x, c_noise, cond) - x).square().mean().backward()
        optimizer.step()
    assert all(p.grad is not None and p.grad.any() for p in coupled.parameters())


@pytest.mark.parametrize("temporal", [[], *COUPLINGS.values()], ids=["none", *COUPLINGS])
def test_couplings_couple_frames_and_nothing_else_does(x, c_noise, temporal):
    changed = x.clone()
    changed[:, :, 1] += 1
    net = network(temporal=temporal)
    differs = net(changed, c_noise, NONE) != net(x, c_noise, NONE)
    assert differs[:, :, 1].any()
    assert bool(differs[:, :, 0].any()) is bool(temporal)


def test_statistics_of_a_clip_couple_its_frames(x, c_noise):
    net = network(block={"statistics": "clip"})
    changed = x.clone()
    changed[:, :, 1] += 1
    assert not torch.allclose(net(changed, c_noise, NONE)[:, :, 0], net(x, c_noise, NONE)[:, :, 0])
    assert not net.is_causal


def test_new_layers_are_the_identity_and_a_new_network_predicts_zero(x, c_noise):
    net = fresh(widths=(8, 8), temporal=COUPLINGS["two"])
    seen = []
    for layer in net.middle:
        layer.register_forward_hook(lambda module, given, out: seen.append((given[0], out)))
    assert not net(x, c_noise, NONE).any()
    assert len(seen) == 2
    assert all(torch.equal(before, after) for before, after in seen)


def test_of_one_frame_joint_attention_is_spatial(c_noise):
    nets = [
        network(temporal=[TemporalTransformer(rule, positions="none")])
        for rule in (Joint(), Spatial())
    ]
    nets[1].load_state_dict(nets[0].state_dict())
    x = torch.randn(B, C, 1, H, W)
    torch.testing.assert_close(*(net(x, c_noise, NONE) for net in nets))


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


def test_noise_levels_of_frames(x, c_noise):
    net, times = network(), torch.rand(B, T)
    each = net(x, 1000 * times, NONE)
    torch.testing.assert_close(each, net(x, c_noise, Conditioning(token_times=times)))
    same = c_noise[:, None].expand(-1, T)
    torch.testing.assert_close(net(x, same, NONE), net(x, c_noise, NONE), rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="got c_noise for 4 frames"):
        net(x, torch.rand(B, 4), NONE)


def test_numbers_may_be_embedded_together(x, c_noise):
    level = LevelOptions(scalars="together", scalar_sinusoid_dim=6, time_scale=None)
    net = network(scalars=["fps", "noise_aug"], level=level, frame_conditioning="latents")
    cond = Conditioning(fps=torch.rand(B), noise_aug=torch.rand(B))
    assert net(x, c_noise, cond).shape == x.shape
    assert net.reads == {"fps", "noise_aug", "given"}
    given = cond.replace(given=torch.randn_like(x))
    assert not torch.allclose(net(x, c_noise, given), net(x, c_noise, cond))


def test_padding_of_the_text_is_not_seen(x, c_noise):
    net, cond = network(text_dim=TEXT), Conditioning(**texts())
    noise = torch.randn(B, N, TEXT) * (1 - cond.text_mask)[:, :, None]
    other = cond.replace(text=cond.text + noise)
    torch.testing.assert_close(net(x, c_noise, cond), net(x, c_noise, other))


def test_no_given_frames_is_the_same_as_none_marked(x, c_noise):
    net = network()
    marked = Conditioning(given=torch.zeros_like(x), given_mask=torch.zeros(B, 1, T, H, W))
    assert torch.equal(net(x, c_noise, NONE), net(x, c_noise, marked))


@pytest.mark.parametrize("temporal", [COUPLINGS["two"], COUPLINGS["interleaved"]])
def test_a_sample_does_not_depend_on_its_batch(x, c_noise, temporal):
    net, cond = network(text_dim=TEXT, temporal=temporal), Conditioning(**texts())
    whole = net(x, c_noise, cond)
    for k in range(B):
        one = slice(k, k + 1)
        alone = net(x[one], c_noise[one], cond.select(one))
        torch.testing.assert_close(whole[one], alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("surplus", "problem"),
    [
        ({"text": torch.zeros(B, N, TEXT)}, "UNet3D does not read text; it reads: given"),
        ({"given": torch.zeros(B, C, T, H, W)}, "got one of given and given_mask, expected both"),
        ({"token_times": torch.zeros(B, T + 1)}, "got token_times for 6 frames"),
    ],
)
def test_conditioning_that_does_not_fit_is_refused(x, c_noise, surplus, problem):
    with pytest.raises(ValueError, match=problem):
        network()(x, c_noise, Conditioning(**surplus))


@pytest.mark.parametrize("name", ["text_dim", "pooled_dim"])
def test_conditioning_that_it_needs_is_missed(x, c_noise, name):
    with pytest.raises(ValueError, match="UNet3D needs "):
        network(**{name: TEXT})(x, c_noise, NONE)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"attention": (0, 1)}, r"got 2 widths and attention=\(0, 1\)"),
        ({"widths": ()}, "got 0 widths"),
        ({"block": {"heads": Heads(number=5)}}, r"heads\.number=5, expected a divisor of 12, e\.g"),
        ({"block": {"num_groups": 3}}, r"num_groups=3, expected a divisor of 8, e\.g\. 2"),
        ({"temporal": [FactorizedConv(), FactorizedConv()]}, "got several couplings inside"),
        ({"attention": (0, 0, 0), "temporal": [InterleavedBlocks()]}, "acts at no place"),
        ({"attention": (0, 0, 0), "temporal": [TemporalTransformer()]}, "acts at no place"),
        ({"attention": (0, 0, 0), "temporal": [TemporalAttention()]}, "acts at no place"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(arguments, problem):
    with pytest.raises(ValueError, match=problem):
        network(**arguments)


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: Heads(), "got neither the number nor the dim of heads"),
        (lambda: TemporalConvStack(depth=0), "got depth=0"),
        (lambda: TemporalTransformer(num_attentions=0), "got num_attentions=0"),
        (lambda: TemporalAttention(num_rotated=7), "got num_rotated=7, .*; nearest: 6"),
        (lambda: TemporalResBlock(is_causal=True, statistics="clip"), "expected 'frame'"),
    ],
)
def test_choices_that_contradict_themselves_are_refused(make, problem):
    with pytest.raises(ValueError, match=problem):
        make()


def test_latents_that_do_not_fit_are_refused(c_noise):
    with pytest.raises(ValueError, match="got 4 channels, expected 3"):
        network()(torch.randn(B, 4, T, H, W), c_noise, NONE)


@pytest.mark.parametrize("temporal", CAUSAL.values(), ids=CAUSAL)
def test_no_frame_sees_the_future(c_noise, temporal):
    net = network(temporal=temporal)
    assert net.is_causal
    x = torch.randn(B, C, T, H, W, requires_grad=True)
    pred = net(x, c_noise, NONE)
    for k in range(T):
        (grad,) = torch.autograd.grad(pred[:, :, k].sum(), x, retain_graph=True)
        assert not grad[:, :, k + 1 :].any()
        assert grad[:, :, k].any()


def test_a_guest_goes_before_or_behind_the_feedforward(c_noise):
    """LaVie's two orders: the block with its guest is the sum of its branches, one by one."""
    torch.manual_seed(0)
    tokens = torch.randn(B, T, 2, 3, 12)
    for is_last in (False, True):
        net = network(temporal=[TemporalAttention(is_last=is_last)], text_dim=TEXT)
        signals = Signals(torch.zeros(B, 1, 32), torch.randn(B, N, TEXT))
        block, *behind = net.middle[0].transformer.blocks
        guest = behind[0] if is_last else block.guests[0]
        x = tokens + Spatial()(block.norms[0](tokens), block.attentions[0])
        flat = block.norms[1](x).flatten(1, 3)
        x = x + block.attentions[1](flat, signals.context).view_as(x)
        x = x if is_last else guest(x, signals)
        x = x + block.feedforward(block.norm_out(x))
        x = guest(x, signals) if is_last else x
        whole = block(tokens, signals)
        torch.testing.assert_close(guest(whole, signals) if is_last else whole, x)
        assert not torch.allclose(guest(tokens, signals), tokens, atol=1e-3)


def test_places_may_see_the_first_frame_and_the_one_before(x, c_noise):
    net = network(block={"spatial": FirstAndPrevious()})
    assert net.is_causal
    other = x.clone()
    other[:, :, 1] = 0
    changed = (net(x, c_noise, NONE) - net(other, c_noise, NONE)).abs().amax(dim=(0, 1, 3, 4)) > 0
    assert changed.tolist() == [k > 0 for k in range(T)]


@pytest.mark.parametrize("temporal", CAUSAL.values(), ids=CAUSAL)
def test_chunk_by_chunk_equals_the_whole_pass(x, temporal):
    net = network(temporal=temporal, text_dim=TEXT).double()
    cond = Conditioning(
        **texts(), given=torch.randn_like(x), given_mask=torch.ones(B, 1, T, H, W)
    ).to(torch.float64)
    c_noise, x = torch.rand(B, T, dtype=torch.float64), x.double()
    with torch.no_grad():
        whole = net(x, c_noise, cond)
        for chunks in ((1,) * T, (2, 3)):
            start, cache, parts = 0, None, []
            for size in chunks:
                part = slice(start, start + size)
                given, mask = cond.given[:, :, part], cond.given_mask[:, :, part]
                here = cond.replace(given=given, given_mask=mask)
                pred, cache = net.step(x[:, :, part], c_noise[:, part], here, cache)
                parts.append(pred)
                start += size
            assert cache.num_frames == T
            assert (torch.cat(parts, dim=2) - whole).abs().max() <= 1e-6 * whole.std()


def test_a_window_bounds_the_memory_of_a_stream(c_noise):
    net, cache, sizes = network(temporal=CAUSAL["two"]), None, []
    for _ in range(6):
        _, cache = net.step(torch.randn(B, C, 1, H, W), c_noise, NONE, cache)
        sizes.append(cache.num_bytes)
    assert len(set(sizes[1:])) == 1


def test_a_step_changes_neither_the_cache_nor_the_network(x, c_noise):
    net = network(temporal=CAUSAL["two"])
    _, cache = net.step(x[:, :, :2], c_noise, NONE)
    first, _ = net.step(x[:, :, 2:], c_noise, NONE, cache)
    again, _ = net.step(x[:, :, 2:], c_noise, NONE, cache)
    assert torch.equal(first, again)


@pytest.mark.parametrize(
    "arguments", [{"temporal": COUPLINGS["two"]}, {"block": {"statistics": "clip"}}]
)
def test_a_network_that_sees_the_future_has_no_steps(x, c_noise, arguments):
    net = network(**arguments)
    assert not net.is_causal
    with pytest.raises(ValueError, match="expected causal couplings in time"):
        net.step(x, c_noise, NONE)


def test_checkpointing_changes_no_gradient(x, c_noise):
    grads = []
    for recompute in (False, True):
        net = network(temporal=COUPLINGS["two"], block={"gradient_checkpointing": recompute})
        net.train()(x, c_noise, NONE).square().sum().backward()
        grads.append([p.grad for p in net.parameters()])
    torch.testing.assert_close(*grads)


def test_half_precision_stays_half(x, c_noise):
    net = network(text_dim=TEXT, temporal=COUPLINGS["two"])
    cond = Conditioning(**texts())
    full = net(x, c_noise, cond)
    half = net.bfloat16()(x.bfloat16(), c_noise, cond.to(torch.bfloat16))
    assert half.dtype == torch.bfloat16
    assert (half - full).norm() < 0.1 * full.norm()


def test_frames_and_tokens_are_never_copied_to_another_layout(x, c_noise):
    net, strides = network(temporal=COUPLINGS["two"]), []
    for layer in (layer for level in [*net.down, *net.up] for layer in level.layers):
        layer.register_forward_hook(lambda module, given, out: strides.append((given[0], out)))
    net(x, c_noise, NONE)
    last = torch.channels_last_3d
    assert all(v.is_contiguous(memory_format=last) for pair in strides for v in pair)


def test_a_network_is_written_down_and_built_again(x, c_noise):
    net = network(
        temporal=[TemporalTransformer(Temporal(True, 2), blend=Learned(0.1)), *CAUSAL["residual"]]
    )
    again = build(describe(net)).eval()
    again.load_state_dict(net.state_dict())
    assert torch.equal(again(x, c_noise, NONE), net(x, c_noise, NONE))


def test_a_network_is_configured_from_yaml(x, c_noise):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--network", type=torch.nn.Module)
    text = """
    network:
      class_path: vdm.models.unet3d.UNet3D
      init_args:
        in_channels: 3
        widths: [8, 12]
        temporal:
          - class_path: vdm.models.unet3d_temporal.TemporalResBlock
            init_args: {blend: {class_path: vdm.layers.temporal.Learned, init_args: {initial: 0.1}}}
          - class_path: vdm.models.unet3d_temporal.TemporalTransformer
            init_args:
              factorization:
                class_path: vdm.layers.factorization.Temporal
                init_args: {is_causal: true, window: 3}
        block: {heads: {dim: 4}, num_groups: 2}
    """
    net = parser.instantiate(parser.parse_string(text)).network
    rule = net.middle[0].after_transformer[0].blocks[0].attends[0]
    assert rule == Temporal(is_causal=True, window=3)
    assert net(x, c_noise, NONE).shape == x.shape
    with pytest.raises(ArgumentError, match="'windov' is not accepted"):
        parser.parse_string(text.replace("window", "windov"))


def test_which_couplings_may_go_on_for_ever():
    endless = {name: network(temporal=temporal).is_endless for name, temporal in CAUSAL.items()}
    assert [name for name, is_endless in endless.items() if is_endless] == [
        "convolutions",
        "factorized",
        "residual",
        "window",
        "guest",
    ]
    assert not network(temporal=CAUSAL["window"], block={"spatial": FirstAndPrevious()}).is_endless
    assert not network(temporal=COUPLINGS["window"]).is_endless
