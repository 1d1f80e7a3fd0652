"""What 50_checkpoints.ipynb can't hold: who may read a weight file."""

import os
import stat
from pathlib import Path

import pytest

from srgan_nb.checkpoints import GENERATOR_FORMAT, SHIPPED, generator_file, load_generator, save_generator, save_tensors
from srgan_nb.errors import UserError
from srgan_nb.generator import Generator
from srgan_nb.interchange import PublicGenerator


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


@pytest.mark.parametrize("made", ["srgan/settings.json", "srgan/generator.safetensors", "srgan"])
def test_a_shipped_name_that_is_a_run_or_file_here_too_is_refused(made: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(made).parent.mkdir(exist_ok=True)
    save_generator(Generator(channels=4), made)
    with pytest.raises(UserError, match=r"write \./srgan for yours"):
        load_generator("srgan")
    if made == "srgan/settings.json":
        Path(made).rename("srgan/generator.safetensors")
    for own in ("./srgan", Path("srgan"), str(tmp_path / "srgan")):
        assert load_generator(own).settings["channels"] == 4


def test_a_folder_of_pictures_does_not_hide_a_shipped_name(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("srgan").mkdir()  # as `srgan_upscale photos srgan` leaves it
    assert generator_file("srgan").parent == SHIPPED


def test_what_could_not_be_loaded_again_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="only a Generator is saved, not PublicGenerator"):
        save_generator(PublicGenerator(Generator(channels=4, blocks=1)), tmp_path / "weights.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_setting_of_a_later_version_is_named(tmp_path: Path) -> None:
    generator = Generator(channels=4)
    save_tensors(tmp_path / "new.safetensors", generator.state_dict(), format=GENERATOR_FORMAT, passport={},
                 settings={**generator.settings, "attention": True})
    with pytest.raises(UserError, match="new.safetensors.*attention.*update it"):
        load_generator(tmp_path / "new.safetensors")
