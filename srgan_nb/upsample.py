import torch
from torch import Tensor, nn

__all__ = ["PixelShuffle", "UpsampleBlock", "icnr_"]


class PixelShuffle(nn.Module):
    "(N, C*r*r, H, W) -> (N, C, r*H, r*W)"

    def __init__(self, factor: int = 2):
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        r = self.factor
        x = x.reshape(n, c // r**2, r, r, h, w).permute(0, 1, 4, 2, 5, 3)
        return x.reshape(n, c // r**2, h * r, w * r)


@torch.no_grad()
def icnr_(weight: Tensor, factor: int = 2) -> Tensor:
    "Fills a convolution's weight so that the pixel shuffle behind it starts as nearest-neighbour enlargement."
    part = torch.empty_like(weight[:: factor**2])
    nn.init.kaiming_uniform_(part, a=5**0.5)
    return weight.copy_(part.repeat_interleave(factor**2, dim=0))


class UpsampleBlock(nn.Module):
    "conv 3x3 to 4C channels, PixelShuffle 2, PReLU (figure 4). (N, C, H, W) -> (N, C, 2H, 2W)"

    def __init__(self, channels: int = 64, factor: int = 2, icnr: bool = False):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels * factor**2, 3, padding=1)
        self.shuffle = PixelShuffle(factor)
        self.activation = nn.PReLU()
        if icnr:
            icnr_(self.conv.weight, factor)

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.shuffle(self.conv(x)))
