"""Speed and memory of upscaling: `python tests/benchmarks/upscaling.py [speed] [memory] [gpu] [folder] [--preset lite|paper]`.

speed:  256x256 LR pixels, the plain way (evaluation mode, no_grad, NCHW, whole picture) against FastGenerator, in turn.
memory: 1500x1000 LR pixels (24 megapixels out) by `upscale(..., max_memory="1GB")` in a fresh process: the peak of its
        resident memory above what it had after importing, and the time against the whole picture at once.
folder: 300 pictures of 64x64 (--pictures N --side S) from files to files by the shipped SRGAN: one after another with all
        threads against side by side, in turn, and by the command line in one process and shared by four.
gpu:    the same picture from file to file's bytes on the CPU, on CUDA in float32 and in half precision.
Prints what it measures; the limits it is held to stand beside. Memory is read from /proc: Linux only.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image

from srgan_nb import upscale_files
from srgan_nb.generator import GENERATOR_PRESETS, Generator
from srgan_nb.images import demo_photo
from srgan_nb.tiles import FastGenerator
from srgan_nb.upscaling import Upscaler

PIECE = """
import sys, time
import numpy as np, torch
from srgan_nb.generator import Generator
from srgan_nb.tiles import FastGenerator
from srgan_nb.upscaling import Upscaler

def memory(line):
    with open("/proc/self/status") as status:
        return next(int(text.split()[1]) * 1024 for text in status if text.startswith(line))

preset, way, width, height, limit = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
from PIL import Image
generator = Generator.from_preset(preset).eval()
picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))
baseline, start, cpu = memory("VmRSS"), time.perf_counter(), time.process_time()
if way == "tiles":
    Upscaler(generator, max_memory=limit, device="cpu")(picture)
else:
    with torch.inference_mode():
        network = FastGenerator(generator)
        lr = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 255
        sr = network.enlarge(network.features(lr), lr).clamp_(0, 1).mul_(255).round_().to(torch.uint8)
print(memory("VmHWM") - baseline, time.perf_counter() - start, time.process_time() - cpu)
"""


def randomised(preset: str) -> Generator:
    "A generator whose batch-norm statistics are not trivial, so that folding has something to fold."
    torch.manual_seed(0)
    generator = Generator.from_preset(preset)
    for module in generator.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
            torch.nn.init.normal_(module.running_mean, 0, 0.1)
    torch.nn.init.normal_(generator.tail.weight, 0, 0.02)
    return generator.eval()


def speed(preset: str, side: int = 256, rounds: int = 2) -> float:
    "Prints and returns how many times as fast the fast form is, by wall time; the outputs must agree to 1e-4."
    generator = randomised(preset)
    fast, lr = FastGenerator(generator), torch.rand(1, 3, side, side)
    wall, cpu = {"plain": [], "fast": []}, {"plain": [], "fast": []}
    for _ in range(rounds):
        outputs = []
        for name, network in (("plain", generator), ("fast", fast)):
            start, cpu_start = time.perf_counter(), time.process_time()
            with torch.no_grad():
                outputs.append(network(lr))
            wall[name].append(time.perf_counter() - start)
            cpu[name].append(time.process_time() - cpu_start)
    difference = (outputs[0] - outputs[1]).abs().max().item()
    ratio, cpu_ratio = (min(times["plain"]) / min(times["fast"]) for times in (wall, cpu))
    print(f"speed {preset} {side}x{side}, {torch.get_num_threads()} threads: plain {min(wall['plain']):.2f} s, fast "
          f"{min(wall['fast']):.2f} s, {ratio:.2f} times as fast (processor time {cpu_ratio:.2f}), difference "
          f"{difference:.0e}   [paper: at least 2.2, 1e-4]", flush=True)
    assert difference < 1e-4
    return ratio


def peak(preset: str, way: str, width: int, height: int, limit: str) -> tuple[float, float, float]:
    "Peak memory above the import baseline in bytes, wall and processor seconds of one enlargement in a fresh process."
    words = [sys.executable, "-c", PIECE, preset, way, str(width), str(height), limit]
    numbers = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
    return tuple(float(number) for number in numbers[-3:])


def memory(preset: str, width: int = 1500, height: int = 1000, limit: str = "1GB", whole: bool = True) -> None:
    "Prints peak and time with tiles, and without."
    rise, seconds, cpu = peak(preset, "tiles", width, height, limit)
    print(f"memory {preset} {width}x{height}, limit {limit}: peak {rise / 1e6:.0f} MB above imports, {seconds:.1f} s "
          f"(processor {cpu:.1f} s)", flush=True)
    if whole:
        whole_rise, whole_seconds, whole_cpu = peak(preset, "whole", width, height, limit)
        print(f"  whole: peak {whole_rise / 1e6:.0f} MB, {whole_seconds:.1f} s (processor {whole_cpu:.1f} s); tiles "
              f"{seconds / whole_seconds:.2f} times as long (processor {cpu / whole_cpu:.2f})   [at most 1.15]",
              flush=True)


def gpu(preset: str, width: int, height: int, rounds: int = 3) -> None:
    "Prints the seconds of one enlargement by device and precision, each the best of some rounds after a first one."
    generator = randomised(preset)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))
    for device, half in (("cpu", False), ("cuda", False), ("cuda", True)):
        upscaler, times = Upscaler(generator, device=device, half=half), []
        for _ in range(rounds + 1 if device == "cuda" else 1):
            began = time.perf_counter()
            upscaler(picture)
            times.append(time.perf_counter() - began)
        print(f"{preset} {width}x{height} on {device}{', half' if half else ''}: {min(times[1:] or times):.2f} s",
              flush=True)


def folder(pictures: int, side: int, device: str = "auto", rounds: int = 2) -> None:
    "Prints the pictures a second of each way, in turn; what is written must be the same, byte by byte."
    with TemporaryDirectory() as place:
        source, draws = Path(place, "in"), np.random.default_rng(0)
        source.mkdir()
        with Image.open(demo_photo("astronaut")) as photo:
            for number in range(pictures):
                left, top = draws.integers(0, 512 - side, 2)
                photo.crop((left, top, left + side, top + side)).save(source / f"{number:04}.png")
        upscaler, share = Upscaler("srgan", device=device), upscale_files.SHARE

        def one_after_another(target: Path) -> None:
            upscale_files.SHARE = float("inf")
            upscale_files.upscale_folder(source, target, upscaler, progress=False)

        def side_by_side(target: Path) -> None:
            upscale_files.SHARE = share
            upscale_files.upscale_folder(source, target, upscaler, progress=False)

        def by_processes(target: Path, *starter: str) -> None:
            words = [sys.executable, *starter, "-m", "srgan_nb", "upscale", source, target, "--device", device]
            subprocess.run(words, check=True, capture_output=True, env={**os.environ, "PYTHONPATH": os.getcwd()})

        def one_process(target: Path) -> None:
            by_processes(target)

        def four_processes(target: Path) -> None:
            by_processes(target, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=4")

        upscaler(np.zeros((side, side, 3), np.uint8))  # the first picture sets up kernels
        ways, made = (one_after_another, side_by_side, one_process, four_processes), {}
        times: dict[str, list[float]] = {way.__name__: [] for way in ways}
        for number in range(rounds):
            for way in ways:
                target, began = Path(place, f"{way.__name__} {number}"), time.perf_counter()
                way(target)
                times[way.__name__].append(time.perf_counter() - began)
                made[target.name] = [path.read_bytes() for path in sorted(target.iterdir())]
                print(f"  {way.__name__} {times[way.__name__][-1]:.1f} s", flush=True)
        assert all(one == made["side_by_side 0"] and len(one) == pictures for one in made.values())
        rate = {name: pictures / min(each) for name, each in times.items()}
        print(f"folder of {pictures}, {side}x{side}, {torch.get_num_threads()} threads: " + ", ".join(
            f"{name.replace('_', ' ')} {each:.1f}/s" for name, each in rate.items()) + " (processes with their start)\n"
            f"  side by side {rate['side_by_side'] / rate['one_after_another']:.2f} times as fast as one after another "
            f"[at least 1.5], four processes {rate['four_processes'] / rate['one_process']:.2f} times as one; files equal",
            flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", choices=["speed", "memory", "gpu", "folder"], default=["speed", "memory"])
    parser.add_argument("--preset", choices=list(GENERATOR_PRESETS), nargs="*", default=["lite", "paper"])
    parser.add_argument("--size", type=int, nargs=2, default=(1500, 1000), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--limit", default="1GB")
    parser.add_argument("--pictures", type=int, default=300, help="of a folder")
    parser.add_argument("--side", type=int, default=64, help="of a folder's pictures, in pixels")
    parser.add_argument("--device", default="auto", help="for a folder")
    parser.add_argument("--no-whole", action="store_true", help="leave out the whole picture at once")
    chosen = parser.parse_args()
    if "folder" in chosen.what:
        folder(chosen.pictures, chosen.side, chosen.device)
    for preset in chosen.preset:
        if "speed" in chosen.what:
            speed(preset)
        if "memory" in chosen.what:
            memory(preset, *chosen.size, chosen.limit, not chosen.no_whole)
        if "gpu" in chosen.what:
            gpu(preset, *chosen.size)
