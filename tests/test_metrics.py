"""What 63_protocols.ipynb can't hold: second writings in numpy and plain loops, bad input, LPIPS without its weights."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from srgan_nb.errors import UserError
from srgan_nb.images import to_signed
from srgan_nb.metrics import (
    CHOICES,
    PAPER,
    PUBLIC_PROTOCOLS,
    Protocol,
    average_psnr,
    decode,
    lpips,
    lpips_network,
    psnr,
    scored_pixels,
    ssim,
    ssim_window,
)


def pair(height=40, width=48, seed=0, noise=0.08):
    "An HR of smooth blobs with 8-bit values, and a noisy SR that leaves [0, 1] here and there."
    random = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, height // 4, width // 4, generator=random)
    hr = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")[0].clamp(0, 1)
    hr = (hr * 255).round() / 255
    return hr + noise * torch.randn(hr.shape, generator=random), hr


def y_by_hand(picture):
    "(3, H, W) in [0, 1] -> Y (H, W) of BT.601 from 8-bit values, in numpy."
    values = np.clip(np.round(picture.double().numpy() * 255), 0, 255)
    return 16 + (65.481 * values[0] + 128.553 * values[1] + 24.966 * values[2]) / 255


# PSNR

def test_psnr_equals_a_second_writing_in_numpy():
    sr, hr = pair()
    error = (y_by_hand(sr) - y_by_hand(hr))[4:-4, 4:-4]
    assert psnr(sr, hr).item() == pytest.approx(10 * math.log10(255**2 / np.mean(error**2)), abs=1e-9)


def test_psnr_of_float_and_half_precision_is_that_of_the_8_bit_picture():
    sr, hr = pair()
    rounded = (sr.clamp(0, 1) * 255).round() / 255
    assert psnr(sr, hr) == psnr(rounded, hr) == psnr(rounded.double(), hr)
    assert psnr(rounded.half(), hr.half()) == psnr(rounded, hr)  # 8-bit values survive float16


def test_batches_and_leading_dimensions():
    srs, hrs = (torch.stack(some) for some in zip(*(pair(seed=seed) for seed in range(6)), strict=True))
    for metric in (psnr, ssim):
        flat = metric(srs, hrs)
        assert flat.shape == (6,) and metric(srs[0], hrs[0]).shape == ()
        assert torch.equal(metric(srs.view(2, 3, *srs.shape[1:]), hrs.view(2, 3, *hrs.shape[1:])), flat.view(2, 3))
        assert metric(srs[3], hrs[3]).item() == pytest.approx(flat[3].item(), abs=1e-12)


def test_equal_pictures_and_broken_ones():
    _, hr = pair()
    assert psnr(hr, hr).item() == math.inf and ssim(hr, hr).item() == 1
    broken = hr.clone()
    broken[0, 10, 10] = math.nan
    assert math.isnan(psnr(broken, hr)), "a NaN in the picture must be seen in the score"


def test_metrics_leave_their_inputs_alone_and_carry_no_gradient():
    sr, hr = pair()
    sr.requires_grad_()
    before = sr.detach().clone()
    assert not psnr(sr, hr).requires_grad and not ssim(sr, hr).requires_grad
    assert torch.equal(sr.detach(), before)


@pytest.mark.parametrize("colour", CHOICES["colour"])
@pytest.mark.parametrize("border", [0, 3, 8])
def test_scored_pixels_have_the_protocols_shape_and_range(colour, border):
    _, hr = pair()
    x = scored_pixels(hr, Protocol(colour=colour, border=border))
    assert x.shape == (3 if colour == "rgb" else 1, 40 - 2 * border, 48 - 2 * border) and x.dtype == torch.float64
    low, high = (16, 235) if colour == "y" else (0, 255)
    assert low <= x.min() + 1e-9 and x.max() <= high + 1e-9


def test_grey_pictures_by_both_conventions():
    sr, hr = pair()
    grey_sr, grey = sr.mean(0, keepdim=True), hr.mean(0, keepdim=True)
    own = replace(PAPER, grey="own")
    values = [np.clip(np.round(x[0].double().numpy() * 255), 0, 255)[4:-4, 4:-4] for x in (grey_sr, grey)]
    by_hand = 10 * math.log10(255**2 / np.mean((values[0] - values[1])**2))
    assert psnr(grey_sr, grey, own).item() == pytest.approx(by_hand, abs=1e-9)
    for copies in (grey_sr, grey_sr.expand(3, -1, -1)):  # a network answers in three channels
        assert psnr(copies, grey, own).item() == pytest.approx(by_hand, abs=1e-9)
        assert psnr(copies, grey).item() == pytest.approx(by_hand + 20 * math.log10(255 / 219), abs=1e-9)
    assert psnr(sr, hr, own) == psnr(sr, hr), "colour pictures do not care about the grey rule"


def test_averages():
    values = torch.tensor([30.0, 30.0, 30.0])
    assert average_psnr(values, Protocol(average="errors")).item() == pytest.approx(30, abs=1e-5)
    values = torch.tensor([20.0, 40.0])
    assert average_psnr(values, Protocol(average="errors")).item() == pytest.approx(22.967, abs=1e-3)


# what is refused

@pytest.mark.parametrize("field", CHOICES)
def test_a_protocol_refuses_unknown_words(field):
    with pytest.raises(UserError, match=f"no {field} 'nonsense'.*choose"):
        Protocol(**{field: "nonsense"})


@pytest.mark.parametrize("metric", [psnr, ssim, lpips])
def test_sizes_must_agree(metric):
    with pytest.raises(UserError, match="must have one size"):
        metric(torch.zeros(3, 64, 64), torch.zeros(3, 64, 60))
    with pytest.raises(UserError, match="must have one size"):
        metric(torch.zeros(2, 3, 64, 64), torch.zeros(3, 3, 64, 64))


@pytest.mark.parametrize("metric", [psnr, ssim, lpips])
@pytest.mark.parametrize("on_255", [lambda x: x * 255, lambda x: (x * 255).round().byte()])
def test_pictures_on_255_are_refused(metric, on_255):
    sr, hr = pair(64, 64)
    for both in ((on_255(hr), on_255(sr.clamp(0, 1))), (sr, on_255(hr)), (on_255(sr.clamp(0, 1)), hr)):
        with pytest.raises(UserError, match=r"floats in \[0, 1\], not 0 to 255"):
            metric(*both)


@pytest.mark.parametrize("metric", [psnr, ssim, lpips])
def test_pictures_on_the_signed_range_are_refused(metric):
    sr, hr = pair(64, 64)
    with pytest.raises(UserError, match="`to_unit`"):
        metric(to_signed(sr), to_signed(hr))


def test_pictures_too_small_are_refused():
    with pytest.raises(UserError, match="8x30 has nothing left"):
        psnr(torch.zeros(3, 30, 8), torch.zeros(3, 30, 8))
    with pytest.raises(UserError, match="window has 11 pixels"):
        ssim(torch.zeros(3, 18, 30), torch.zeros(3, 18, 30))
    with pytest.raises(UserError, match="at least 32x32"):
        lpips(torch.zeros(3, 31, 64), torch.zeros(3, 31, 64))
    with pytest.raises(UserError, match="no pictures"):
        decode([])


# SSIM

def test_ssim_equals_scikit_image_on_twenty_pictures():
    from skimage.metrics import structural_similarity
    for seed in range(20):
        sr, hr = pair(32 + 4 * seed, 100 - 4 * (seed % 10), seed, noise=0.02 * (1 + seed % 7))
        x, y = (y_by_hand(z)[4:-4, 4:-4] for z in (sr, hr))
        wang = structural_similarity(x, y, data_range=255, gaussian_weights=True, use_sample_covariance=False)
        uniform = structural_similarity(x, y, data_range=255)
        assert ssim(sr, hr).item() == pytest.approx(wang, abs=1e-9)
        assert ssim(sr, hr, replace(PAPER, ssim="uniform")).item() == pytest.approx(uniform, abs=1e-9)


def test_ssim_in_colour_is_the_mean_over_the_channels():
    from skimage.metrics import structural_similarity
    sr, hr = pair()
    x, y = (np.clip(np.round(z.double().numpy() * 255), 0, 255) for z in (sr, hr))
    theirs = structural_similarity(x, y, data_range=255, gaussian_weights=True, use_sample_covariance=False,
                                   channel_axis=0)
    assert ssim(sr, hr, Protocol(colour="rgb", border=0)).item() == pytest.approx(theirs, abs=1e-9)


def daala_by_brute_force(x, y):
    "SSIM of two (H, W) arrays on 0-255 as daala's tool defines it, position by position, in plain loops."
    height, width = x.shape
    sigma = 1.5 * height / 256
    radius = 0
    while 256 * math.exp(-(radius + 1) ** 2 / (2 * sigma**2)) / (math.sqrt(2 * math.pi) * sigma) >= 0.5:
        radius += 1
    kernel = {k: math.floor(256 * math.exp(-k * k / (2 * sigma**2)) / (math.sqrt(2 * math.pi) * sigma) + 0.5)
              for k in range(-radius, radius + 1)}
    kernel[0] = 256 - sum(weight for k, weight in kernel.items() if k)
    total = weights = 0.0
    for row in range(height):
        for column in range(width):
            w = mx = my = xx = yy = xy = 0.0
            for i in range(max(0, row - radius), min(height, row + radius + 1)):
                for j in range(max(0, column - radius), min(width, column + radius + 1)):
                    k = kernel[i - row] * kernel[j - column]
                    a, b = x[i, j], y[i, j]
                    w, mx, my = w + k, mx + k * a, my + k * b
                    xx, yy, xy = xx + k * a * a, yy + k * b * b, xy + k * a * b
            mx, my, xx, yy, xy = mx / w, my / w, xx / w, yy / w, xy / w
            score = (2 * mx * my + 2.55**2) * (2 * (xy - mx * my) + 7.65**2)
            score /= (mx * mx + my * my + 2.55**2) * (xx - mx * mx + yy - my * my + 7.65**2)
            total, weights = total + w * score, weights + w
    return total / weights


@pytest.mark.parametrize("height,width", [(24, 12), (100, 12), (200, 12)])
def test_daala_ssim_equals_its_definition(height, width):
    sr, hr = pair(height, width)
    x, y = (y_by_hand(z) for z in (sr, hr))
    ours = ssim(sr, hr, Protocol(border=0, ssim="daala")).item()
    assert ours == pytest.approx(daala_by_brute_force(x, y), abs=1e-9)


@pytest.mark.parametrize("height", [100, 256, 512, 2000])
def test_daala_window_is_made_of_256ths_and_grows(height):
    window = ssim_window("daala", height) * 256
    assert torch.equal(window, window.round()) and window.sum() == 256 and (window > 0).all()
    assert torch.equal(window, window.flip(0)) and len(ssim_window("daala", 2 * height)) > len(window)


def test_padded_ssim_sees_black_outside():
    _, hr = pair()
    sr = hr.clone()
    sr[:, 0] = 1 - sr[:, 0]  # spoil the first row
    wang, padded = (Protocol(colour="rgb", border=0, ssim=kind) for kind in ("wang", "padded"))
    framed = [torch.nn.functional.pad(z, (5, 5, 5, 5)) for z in (sr, hr)]
    assert ssim(sr, hr, padded).item() == pytest.approx(ssim(*framed, wang).item(), abs=1e-12)
    assert ssim(sr, hr, padded) != ssim(sr, hr, wang)


# LPIPS

@pytest.mark.slow
def test_lpips_of_the_published_example(shared):
    random = torch.Generator().manual_seed(42)
    first, second = (torch.rand(2, 3, 100, 100, generator=random) for _ in range(2))
    assert lpips(first, second).tolist() == pytest.approx([0.1024, 0.0938], abs=5e-4)
    assert lpips(first[1], second[1]).item() == pytest.approx(0.0938, abs=5e-4)
    assert lpips(first, first).abs().max() < 1e-6
    grey = first[:, :1]
    assert torch.allclose(lpips(grey, second), lpips(grey.expand(-1, 3, -1, -1), second))


def test_lpips_without_its_weights_says_what_to_put_where(tmp_path, monkeypatch):
    def no_network(url, *_, **__):
        raise OSError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    lpips_network.cache_clear()
    try:
        with pytest.raises(UserError, match=r"needs https://\S+alexnet\S+\.pth.*no route to host.*put that file into"):
            lpips(torch.rand(3, 64, 64), torch.rand(3, 64, 64), "alex")
    finally:
        lpips_network.cache_clear()


def test_lpips_without_torchmetrics_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torchmetrics.image", None)
    lpips_network.cache_clear()
    with pytest.raises(UserError, match="pip install torchmetrics"):
        lpips_network("squeeze")
    with pytest.raises(UserError, match="choose squeeze, alex, vgg"):
        lpips_network("resnet")


# the decoder

def test_the_decoder_finds_each_protocol_by_the_score_it_gives():
    pairs = [pair(seed=seed, noise=0.03 + 0.02 * seed) for seed in range(3)]
    for name, protocol in PUBLIC_PROTOCOLS.items():
        score = average_psnr(torch.stack([psnr(sr, hr, protocol) for sr, hr in pairs]), protocol).item()
        best = decode(pairs, published=score)[0]
        assert best["off"] == pytest.approx(0, abs=1e-4), f"{name} was taken for {best['protocol']}"
    assert [row["protocol"] for row in decode(pairs)] == list(PUBLIC_PROTOCOLS)


# devices

@pytest.mark.slow
@pytest.mark.parametrize("colour, unit", [("y", 255_000), ("y_full", 219_000)])
def test_luma_that_is_exactly_a_half_is_rounded_up(colour, unit):
    """As MATLAB rounds, in exact arithmetic: else a device that adds in another order gets another score."""
    r, g, b = torch.meshgrid(*[torch.arange(256)] * 3, indexing="ij")
    thousandths = 65_481 * r + 128_553 * g + 24_966 * b
    halves = torch.stack([r, g, b], dim=-1)[thousandths % unit == unit // 2].T  # (3, count)
    assert halves.shape[1] > 20
    expected = (65_481 * halves[0] + 128_553 * halves[1] + 24_966 * halves[2] + unit // 2) // unit
    protocol = replace(PAPER, colour=colour, round_luma=True, border=0)
    scored = scored_pixels(halves[:, None].double() / 255, protocol)[0, 0]
    assert torch.equal(scored, expected.double() + (16 if colour == "y" else 0))


@pytest.mark.cuda
def test_cuda_gives_the_cpus_scores(shared):
    sr, hr = pair(64, 64)
    for protocol in (*PUBLIC_PROTOCOLS.values(), PAPER):
        for metric in (psnr, ssim):
            there = metric(sr.cuda(), hr.cuda(), protocol)
            assert there.is_cuda and there.item() == pytest.approx(metric(sr, hr, protocol).item(), abs=1e-9)
    assert lpips(sr.cuda(), hr.cuda()).item() == pytest.approx(lpips(sr, hr).item(), abs=1e-4)
