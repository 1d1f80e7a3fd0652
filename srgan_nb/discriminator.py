import torch
from torch import Tensor, nn

from srgan_nb.files import UserError
from srgan_nb.images import to_signed

__all__ = ["Discriminator"]


class Discriminator(nn.Module):
    "Figure 4's discriminator. (N, 3, P, P) in [0, 1] -> logits (N, 1); P is patch_size, a multiple of 16."

    def __init__(self, patch_size: int = 96, channels: int = 64, dense: int = 1024, batch_norm: bool = True):
        super().__init__()
        if patch_size % 16 or patch_size < 16:
            raise UserError(f"patch_size is {patch_size}: it must be a multiple of 16, for the map is halved four times")
        self.settings = dict(patch_size=patch_size, channels=channels, dense=dense, batch_norm=batch_norm)
        self.patch_size = patch_size
        layers, before = [], 3
        for index, factor in enumerate([1, 1, 2, 2, 4, 4, 8, 8]):
            norm = batch_norm and index > 0
            layers += [nn.Conv2d(before, channels * factor, 3, stride=1 + index % 2, padding=1, bias=not norm)]
            layers += [nn.BatchNorm2d(channels * factor)] if norm else []
            layers += [nn.LeakyReLU(0.2)]
            before = channels * factor
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Flatten(), nn.Linear(before * (patch_size // 16) ** 2, dense),
                                        nn.LeakyReLU(0.2), nn.Linear(dense, 1))

    def forward(self, images: Tensor) -> Tensor:
        if images.shape[-2:] != (self.patch_size, self.patch_size):
            raise UserError(f"this discriminator judges {self.patch_size}x{self.patch_size} patches, got "
                            f"{images.shape[-2]}x{images.shape[-1]}: build Discriminator(patch_size=...)")
        return self.classifier(self.features(to_signed(images)))
