"""Networks in which no layer is trivial, as after a training."""

import torch
from torch import nn


def stir(network: nn.Module) -> nn.Module:
    "Random statistics, slopes and last convolutions; evaluation mode."
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, 0, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.1)
        if isinstance(module, nn.PReLU):
            nn.init.uniform_(module.weight, 0, 0.5)
        if isinstance(module, nn.Conv2d) and module.out_channels == 3:
            nn.init.normal_(module.weight, 0, 0.05)
    return network.eval()
