"""What 57_scaling_up.ipynb can't hold: devices that are refused, everywhere in the same words."""

import pytest

from srgan_nb.checkpoints import load_generator
from srgan_nb.devices import choose_device
from srgan_nb.errors import UserError
from srgan_nb.evaluation import find_model
from srgan_nb.upscaling import Upscaler

WRONG = ["xpu", "vulkan", "hpu", "meta", "CPU", "cuda:-1", "", None]  # torch.device() takes the first four


@pytest.mark.parametrize("name", WRONG)
def test_a_device_that_nothing_here_computes_on_is_refused(name) -> None:
    with pytest.raises(UserError, match="choose auto, cpu, mps, cuda or cuda:N"):
        choose_device(name)


@pytest.mark.parametrize("model", ["bicubic", "srgan", lambda lr: lr])
def test_whatever_the_model_a_wrong_device_is_refused_before_any_work(model) -> None:
    with pytest.raises(UserError, match="no device 'xpu'"):
        find_model(model, device="xpu")


def test_enlarging_and_loading_refuse_it_too() -> None:
    with pytest.raises(UserError, match="no device 'xpu'"):
        Upscaler("bicubic", device="xpu")
    with pytest.raises(UserError, match="no device 'gpu'"):
        load_generator("no such file", device="gpu")
