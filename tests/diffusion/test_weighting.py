import pytest
import torch
from all_schedules import COGVIDEOX

from vdm.diffusion.schedules import EDM, Cosine, LinearPath, VPLinear
from vdm.diffusion.targets import X0, Eps, V, Velocity
from vdm.diffusion.weighting import SNR, Constant, EDMWeighting, MinSNR, Sigmoid, TruncatedSNR

TARGETS = [X0(), Eps(), V(), Velocity()]
OBJECTIVES = [SNR(), TruncatedSNR(), MinSNR(), MinSNR(1.5), EDMWeighting(), Sigmoid()]
T = torch.tensor([0.02, 0.2, 0.45, 0.8, 0.98], dtype=torch.float64)


def on_x0(weighting, schedule):
    return weighting(schedule, X0(), T)


@pytest.mark.parametrize("weighting", OBJECTIVES, ids=str)
@pytest.mark.parametrize("target", TARGETS, ids=str)
@pytest.mark.parametrize("schedule", [LinearPath(), VPLinear(), EDM(), COGVIDEOX], ids=str)
def test_a_weighting_is_one_objective_whatever_is_predicted(weighting, target, schedule):
    x0, eps = torch.randn(2, 5, 1, 2, 3, 4, dtype=torch.float64)
    xt, pred = schedule.add_noise(x0, eps, T), target(schedule, x0, eps, T)
    noisy_pred = pred + torch.randn_like(pred)
    x0_error = (target.to_x0(schedule, xt, noisy_pred, T) - x0).square().flatten(1).mean(1)
    pred_error = (noisy_pred - pred).square().flatten(1).mean(1)
    torch.testing.assert_close(
        weighting(schedule, target, T) * pred_error,
        on_x0(weighting, schedule) * x0_error,
        rtol=1e-6,
        atol=0,
    )


@pytest.mark.parametrize("schedule", [LinearPath(), VPLinear(), EDM()], ids=str)
def test_weights_on_the_sample_are_the_published_functions_of_the_snr(schedule):
    snr = schedule.log_snr(T).exp()
    torch.testing.assert_close(on_x0(SNR(), schedule), snr)
    torch.testing.assert_close(on_x0(TruncatedSNR(), schedule), snr.clamp_min(1))
    torch.testing.assert_close(on_x0(MinSNR(5.0), schedule), snr.clamp_max(5))
    torch.testing.assert_close(on_x0(EDMWeighting(0.5), schedule), snr + 4)
    log_snr = schedule.log_snr(T)
    torch.testing.assert_close(on_x0(Sigmoid(2.0), schedule), snr * torch.sigmoid(2 - log_snr))


def test_edm_weight_is_lambda_of_table_1():
    sigma = EDM().sigma(T)
    expected = (sigma**2 + 0.25) / (sigma * 0.5) ** 2
    torch.testing.assert_close(on_x0(EDMWeighting(0.5), EDM()), expected)


def test_snr_weighting_is_the_plain_loss_of_noise_prediction():
    torch.testing.assert_close(SNR()(VPLinear(), Eps(), T), torch.ones_like(T))


def test_edm_weighting_of_unit_data_is_the_plain_loss_of_v_prediction():
    torch.testing.assert_close(EDMWeighting(1.0)(VPLinear(), V(), T), torch.ones_like(T))


def test_constant_weight_is_one_for_every_target():
    for target in TARGETS:
        assert Constant()(Cosine(), target, T).tolist() == [1] * 5


@pytest.mark.parametrize("weighting", [Constant(), TruncatedSNR(), MinSNR(), Sigmoid()], ids=str)
@pytest.mark.parametrize("target", [X0(), V(), Velocity()], ids=str)
@pytest.mark.parametrize("schedule", [LinearPath(), Cosine()], ids=str)
def test_weights_are_finite_at_both_ends(weighting, target, schedule):
    ends = torch.tensor([0.0, 1.0])
    if isinstance(weighting, TruncatedSNR) and isinstance(target, X0):
        ends = ends[1:]  # there the weight is the SNR, which is infinite for clean data
    assert weighting(schedule, target, ends).isfinite().all()


@pytest.mark.parametrize("weighting", [SNR(), MinSNR(), Sigmoid()], ids=str)
def test_noise_predictions_have_finite_weight_in_pure_noise(weighting):
    weight = weighting(LinearPath(), Eps(), torch.tensor([0.0, 1.0]))
    assert weight.isfinite().all()
    assert weight[1] == 1


@pytest.mark.parametrize("make", [lambda: MinSNR(0.0), lambda: EDMWeighting(0.0)])
def test_impossible_weights_are_refused(make):
    with pytest.raises(ValueError, match="expected more than 0"):
        make()
