"""What figures hold: the pictures' own pixels, the same scene in every crop, one colour scale."""

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from srgan_nb.plots import (
    FACE,
    LiveCurves,
    exercise,
    plot_curves,
    running_crop,
    show_images,
    show_spectrum,
    spectrum,
    where_we_are,
)


@pytest.fixture
def figure(monkeypatch):
    "The figure that was shown, instead of a window."
    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(plt.gcf()))
    yield lambda: shown[-1]
    plt.close("all")


def pictures_in(figure):
    figure.canvas.draw()
    return [axes.images[0].get_array() for axes in figure.axes if axes.images]


def test_crops_show_the_same_part_with_their_own_pixels(figure):
    hr = torch.randint(0, 256, (3, 32, 48), dtype=torch.uint8)
    lr = hr[:, ::4, ::4]
    show_images([lr.float() / 255, hr.float() / 255], titles=["LR", "HR"], crop=(8, 16, 12, 20))
    lr_whole, hr_whole, lr_crop, hr_crop = pictures_in(figure())
    assert np.array_equal(hr_whole, hr.permute(1, 2, 0)) and np.array_equal(lr_whole, lr.permute(1, 2, 0))
    assert np.array_equal(hr_crop, hr[:, 8:20, 16:36].permute(1, 2, 0))
    assert np.array_equal(lr_crop, lr[:, 2:5, 4:9].permute(1, 2, 0))
    assert [axes.images[0].get_interpolation() for axes in figure().axes[2:]] == ["nearest", "nearest"]


@pytest.mark.slow
@pytest.mark.parametrize("columns", [None, 1, 2, 3, 5, 99])
@pytest.mark.parametrize("crop", [None, (2, 2, 4, 4)])
def test_every_picture_is_drawn_once_in_a_figure_that_fits_the_page(figure, columns, crop):
    images = [torch.rand(3, 8 + side, 12) for side in range(3)] + [torch.rand(1, 8, 8), Image.new("L", (30, 10))]
    show_images(images, titles=list("abcde"), columns=columns, crop=crop)
    assert len(pictures_in(figure())) == 5 * (2 if crop else 1)
    assert sorted(axes.get_title() for axes in figure().axes if axes.get_title()) == list("abcde")
    assert figure().get_figwidth() <= 10.1 and figure().get_facecolor() == (1, 1, 1, 1)


def test_titles_must_fit_the_pictures():
    for images, titles in [([], None), ([torch.rand(3, 4, 4)], ["a", "b"])]:
        with pytest.raises(ValueError, match="titles"):
            show_images(images, titles)


def test_where_we_are_shows_the_same_face_large_and_few_in_a_row(figure):
    hr = running_crop()
    lr, (top, left, height, width) = hr[..., ::4, ::4], FACE
    for steps in ({}, {"a": hr}, {"a": hr, "b": hr[0]}, {"a": hr, "b": hr, "c": hr, "d": hr}):
        where_we_are(lr, steps, hr[0])
        shown = [axes for axes in figure().axes if axes.get_title()]
        pictures = dict(zip([axes.get_title() for axes in shown], pictures_in(figure()), strict=True))
        first, last = pictures["LR"], pictures["HR"]
        assert set(pictures) == {"LR", *steps, "HR"} and next(iter(pictures)) == "LR"
        places = {axes.get_title(): axes.get_subplotspec() for axes in shown}
        assert places["HR"].rowspan.start == 0 and places["HR"].is_last_col(), "at the end of the first row"
        assert len(steps) != 2 or places["a"].rowspan == places["b"].rowspan, "what is compared stands side by side"
        assert np.array_equal(last, (hr[0, :, top:top + height, left:left + width] * 255).round().permute(1, 2, 0))
        assert np.array_equal(first, last[::4, ::4])
        assert len({axes.get_subplotspec().colspan.start for axes in figure().axes}) <= 3
        assert figure().get_figwidth() > 9.5, "as large as the page allows"
    where_we_are(lr, hr / 2, hr, "half as bright")
    assert figure().axes[1].get_title() == "half as bright"


def test_curves_in_panels(figure):
    panels = {"loss": {"a": ([1, 2], [3, 4]), "b": ([], [])}, "dB": {"c": (torch.arange(3), torch.rand(3))}}
    plot_curves(panels, title="t")
    assert [axes.get_ylabel() for axes in figure().axes] == ["loss", "dB"]
    plot_curves({"a": ([1, 2], [1e-3, 1])}, "epoch", "loss", logy=True)
    (axes,) = figure().axes
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_yscale()) == ("epoch", "loss", "log")
    plot_curves({"a": ([0, 2, 4, 7, 10, 13], range(6))})
    assert all(tick.is_integer() for tick in figure().axes[0].get_xticks()), "what is counted has no halves"


def test_live_curves_outside_a_notebook_do_nothing():
    live = LiveCurves(ylabel="loss")
    live.update({"a": ([1, 2], [3, 4])})
    assert live.handle is None and not plt.get_fignums()


def test_live_curves_close_their_figures(monkeypatch):
    displayed = []
    plt.switch_backend("agg")  # matplotlib asks for the shell when it chooses its backend: not for this made-up one
    monkeypatch.setattr("IPython.get_ipython", lambda: object())
    monkeypatch.setattr("IPython.display.display", lambda figure, display_id: displayed.append(figure))
    LiveCurves().update({"a": ([1, 2], [3, 4])})
    assert len(displayed) == 1 and not plt.get_fignums()


@pytest.mark.parametrize("size", [(64, 64), (63, 48), (8, 200)])
@pytest.mark.parametrize("channels", [1, 3])
def test_spectrum_finds_a_wave(size, channels):
    height, width = size
    phase = 2 * torch.pi * 2 * torch.arange(width) / width  # two waves across
    power = spectrum((0.5 + 0.4 * torch.cos(phase)).expand(channels, height, width))
    assert power.shape == size
    row, column = divmod(power.argmax().item(), width)
    assert (row, abs(column - width // 2)) == (height // 2, 2)


def test_spectra_share_one_scale(figure):
    show_spectrum([torch.rand(3, 64, 64), torch.full((3, 32, 32), 0.5), Image.new("RGB", (20, 30))], square=1 / 8)
    figure().canvas.draw()
    limits = {axes.images[0].get_clim() for axes in figure().axes if axes.images}
    (scale,) = limits
    assert scale[0] < scale[1] and len(figure().axes[0].lines) == 1 and not figure().axes[1].lines


@pytest.mark.parametrize(("answer", "said"), [
    ("4", "right"), ("...", "not yet: fill in the three dots"), ("5", "not yet: the assertion does not hold"),
    ("len(3)", "not yet: object of type 'int' has no len()"), ("forgotten", "not yet: name 'forgotten' is not defined")])
def test_an_exercise_says_what_is_missing(answer, said, capsys):
    with exercise():
        exec(f"assert abs({answer}) == 4")
    assert capsys.readouterr().out == f"{said}\n"
