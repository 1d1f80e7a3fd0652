"""What 12_checkpoints.ipynb can't hold: who may read a weight file."""

import os
import stat
from pathlib import Path

import pytest

from srgan_nb.checkpoints import load_generator, save_generator
from srgan_nb.generator import Generator


@pytest.mark.skipif(os.name == "nt", reason="Windows has no permission bits")
@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_weights_are_readable_as_far_as_the_umask_allows(mask: int, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        save_generator(Generator.from_preset("lite"), tmp_path / "weights.safetensors")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "weights.safetensors").stat().st_mode) == 0o666 & ~mask
    assert load_generator(tmp_path / "weights.safetensors").settings["blocks"] == 12
