"""Steps a second of the trainer's update, against the plain loop, in one run and in turns.

    python -m tests.benchmarks.training [--preset lite paper] [--steps 20] [--device cpu]

Plain: eager, NCHW, float32, torch.optim.Adam as it comes, the usual allocator. Patches are made beforehand and are no
part of either time. Prints the ratio, how far the losses of the two are apart, and the arithmetic rate. On a GPU it
also prints both stages in float32, bfloat16 and compiled.
"""

import argparse
import statistics
import sys
import time

import torch
from torch.utils.flop_counter import FlopCounterMode

from srgan_nb.devices import Precision, choose_device, keep_freed_memory
from srgan_nb.discriminator import Discriminator
from srgan_nb.generator import Generator
from srgan_nb.losses import PerceptualLoss, content_loss
from srgan_nb.stages import srgan_update, srresnet_update


def batches(steps: int, device: torch.device) -> list[tuple[torch.Tensor, torch.Tensor]]:
    "Smooth random patches, 16 of 96x96 and their quarter."
    torch.manual_seed(0)
    coarse = torch.rand(steps, 16, 3, 12, 12, device=device)
    hr = [torch.nn.functional.interpolate(each, 96, mode="bicubic", antialias=True).clamp(0, 1) for each in coarse]
    return [(torch.nn.functional.interpolate(each, 24, mode="area"), each) for each in hr]


def network(preset: str, device: torch.device, layout: torch.memory_format) -> Generator:
    torch.manual_seed(0)
    return Generator.from_preset(preset).to(device, memory_format=layout)


def plain_step(generator, optimizer, lr, hr) -> float:
    loss = ((generator(lr) * 2 - 1) - (hr * 2 - 1)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def trainer_step(generator, optimizer, lr, hr) -> float:
    lr, hr = (images.contiguous(memory_format=torch.channels_last) for images in (lr, hr))
    return srresnet_update(generator, optimizer, content_loss("MSE"), lr, hr)["content"].item()


def compare(preset: str, steps: int, device: torch.device) -> None:
    "Both ways in turns; the allocator is set between two halves, for it can't be unset."
    patches = batches(steps, device)
    plain, ours = (network(preset, device, layout) for layout in (torch.contiguous_format, torch.channels_last))
    plain_adam = torch.optim.Adam(plain.parameters(), 1e-4)
    our_adam = torch.optim.Adam(ours.parameters(), 1e-4, fused=True)
    seconds, losses = {"plain": [], "ours": []}, {"plain": [], "ours": []}
    for name, step, generator, adam in (("plain", plain_step, plain, plain_adam),
                                        ("ours", trainer_step, ours, our_adam)):
        if name == "ours" and device.type == "cpu":
            keep_freed_memory()
        for lr, hr in patches:
            began = time.perf_counter()
            losses[name].append(step(generator, adam, lr, hr))
            seconds[name].append(time.perf_counter() - began)
    with FlopCounterMode(display=False) as counter:
        plain_step(plain, plain_adam, *patches[0])
    times = {name: statistics.median(values[1:]) for name, values in seconds.items()}
    apart = max(abs(a - b) / a for a, b in zip(losses["plain"], losses["ours"], strict=True))
    rate = counter.get_total_flops() / times["ours"] / 1e9
    ratio = times["plain"] / times["ours"]
    print(f"{preset}: plain {times['plain']:.3f} s a step, ours {times['ours']:.3f} s: {ratio:.2f} times as many "
          f"patches a second; losses at most {apart:.1e} apart; {rate:.0f} GFLOP/s")


def stages(device: torch.device, steps: int) -> None:
    "Steps a second of both stages of the paper's network, by precision, eager and compiled."
    patches = batches(steps, device)
    for precision_name in ("float32", "bfloat16"):
        for compiled in (False, True):
            precision = Precision(precision_name, device)
            generator = network("paper", device, torch.channels_last)
            judge = Discriminator().to(device, memory_format=torch.channels_last)
            adams = [torch.optim.Adam(each.parameters(), 1e-4, fused=True) for each in (generator, judge)]
            if compiled:
                generator, judge = torch.compile(generator), torch.compile(judge)
            content = content_loss("VGG54", weights=None).to(device)
            perceptual = PerceptualLoss(content)
            updates = {"srresnet": lambda lr, hr, g=generator, a=adams, p=precision:
                       srresnet_update(g, a[0], content_loss("MSE"), lr, hr, p),
                       "srgan": lambda lr, hr, g=generator, d=judge, a=adams, p=precision, loss=perceptual:
                       srgan_update(g, d, *a, loss, lr, hr, p)}
            for stage, update in updates.items():
                for lr, hr in patches[:3]:
                    update(lr, hr)
                torch.cuda.synchronize() if device.type == "cuda" else None
                began = time.perf_counter()
                for lr, hr in patches:
                    update(lr, hr)
                torch.cuda.synchronize() if device.type == "cuda" else None
                speed = steps / (time.perf_counter() - began)
                print(f"{stage}, {precision_name}{', compiled' if compiled else ''}: {speed:.2f} steps a second")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--preset", nargs="+", default=["lite", "paper"])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--stages", action="store_true", help="both stages by precision, also on a CPU")
    options = parser.parse_args()
    device = choose_device(options.device)
    for preset in options.preset:
        compare(preset, options.steps, device)
    if device.type == "cuda" or options.stages:
        stages(device, options.steps)
    sys.exit(0)
