from torch import Tensor, nn

__all__ = ["ResidualBlock"]


class ResidualBlock(nn.Module):
    "conv 3x3, BN, PReLU, conv 3x3, BN, add (section 2.1.1, figure 4). (N, C, H, W) -> (N, C, H, W)"

    def __init__(self, channels: int = 64, batch_norm: bool = True):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=not batch_norm)
        self.norm1 = nn.BatchNorm2d(channels) if batch_norm else nn.Identity()
        self.activation = nn.PReLU()
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=not batch_norm)
        self.norm2 = nn.BatchNorm2d(channels) if batch_norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        residual = self.activation(self.norm1(self.conv1(x)))
        return x + self.norm2(self.conv2(residual))
