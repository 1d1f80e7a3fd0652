import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from srgan_nb.files import UserError
from srgan_nb.images import to_unit
from srgan_nb.residual import ResidualBlock
from srgan_nb.upsample import UpsampleBlock

__all__ = ["Generator", "GENERATOR_PRESETS"]

GENERATOR_PRESETS = {
    "paper": dict(channels=64, blocks=16, kernel_size=9, batch_norm=True, bicubic_skip=False),
    "lite": dict(channels=32, blocks=8, kernel_size=3, batch_norm=False, bicubic_skip=True),
}


class Generator(nn.Module):
    "SRResNet, the paper's generator (figure 4). (N, 3, H, W) in [0, 1] -> (N, 3, scale*H, scale*W), nominally in [0, 1], not clamped."

    def __init__(self, scale: int = 4, channels: int = 64, blocks: int = 16, kernel_size: int = 9,
                 batch_norm: bool = True, bicubic_skip: bool = False):
        super().__init__()
        if scale not in (2, 4, 8):
            raise UserError(f"scale is {scale}: it must be 2, 4 or 8")
        self.settings = dict(scale=scale, channels=channels, blocks=blocks, kernel_size=kernel_size,
                             batch_norm=batch_norm, bicubic_skip=bicubic_skip)
        self.scale, self.bicubic_skip = scale, bicubic_skip
        self.head = nn.Sequential(nn.Conv2d(3, channels, kernel_size, padding=kernel_size // 2), nn.PReLU())
        self.blocks = nn.Sequential(*[ResidualBlock(channels, batch_norm) for _ in range(blocks)])
        self.trunk = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, bias=not batch_norm),
                                   nn.BatchNorm2d(channels) if batch_norm else nn.Identity())
        self.upsample = nn.Sequential(*[UpsampleBlock(channels) for _ in range(int(math.log2(scale)))])
        self.tail = nn.Conv2d(channels, 3, kernel_size, padding=kernel_size // 2)
        if bicubic_skip:
            nn.init.zeros_(self.tail.weight)
            nn.init.zeros_(self.tail.bias)

    def forward(self, lr: Tensor) -> Tensor:
        features = self.head(lr)
        features = features + self.trunk(self.blocks(features))
        sr = to_unit(self.tail(self.upsample(features)))
        if self.bicubic_skip:  # the network then learns only what bicubic enlargement lacks
            enlarged = F.interpolate(lr, scale_factor=self.scale, mode="bicubic", align_corners=False)
            sr = sr - 0.5 + enlarged
        return sr

    @classmethod
    def from_preset(cls, preset: str, scale: int = 4) -> "Generator":
        if preset not in GENERATOR_PRESETS:
            raise UserError(f"no preset {preset!r}: choose one of {', '.join(GENERATOR_PRESETS)}")
        return cls(scale=scale, **GENERATOR_PRESETS[preset])
