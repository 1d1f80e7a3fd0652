"""Learn, train and use SRGAN. The names below are what most users need; each room of the package has more.

    import srgan_nb
    srgan_nb.upscale("photo.jpg").save("photo_x4.png")

A name is imported from its module when it is first used, so `import srgan_nb` costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # what editors and type checkers read
    from srgan_nb.checkpoints import load_generator
    from srgan_nb.diagnosis import diagnose
    from srgan_nb.discriminator import Discriminator
    from srgan_nb.downloads import download
    from srgan_nb.evaluation import evaluate
    from srgan_nb.generator import Generator
    from srgan_nb.losses import VGGContentLoss
    from srgan_nb.trainer import Trainer
    from srgan_nb.upscaling import upscale

    __version__: str

HOMES = dict(
    load_generator="checkpoints", diagnose="diagnosis", Discriminator="discriminator", download="downloads",
    evaluate="evaluation", Generator="generator", VGGContentLoss="losses", Trainer="trainer", upscale="upscaling",
)
__all__ = ["Discriminator", "Generator", "Trainer", "VGGContentLoss", "__version__", "diagnose", "download", "evaluate",
           "load_generator", "upscale"]


if not TYPE_CHECKING:  # which would take every name for one of these
    def __getattr__(name: str):
        if name == "__version__":
            value = import_module(f"{__name__}.files").package_version()
        elif name in HOMES:
            value = getattr(import_module(f"{__name__}.{HOMES[name]}"), name)
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return globals().setdefault(name, value)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
