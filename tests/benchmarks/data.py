"""How fast photos are packed and patches are read, against the plain ways; and how much memory a large pack takes.

    python tests/benchmarks/data.py [--photos 100] [--folder FOLDER] [--processes 2]

Photos of 2040x1356 pixels are made from those that come with scikit-image, enlarged, with a little noise, as PNG.
The ways that are compared take turns within one run, so that a busy machine slows both alike; rates and ratios are
given by the clock and, for a machine that has other work as well, by the processor time that was used.
"""
import argparse
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from srgan_nb.images import demo_photo, to_tensor
from srgan_nb.packs import Pack, pack_photos
from srgan_nb.patches import PatchSampler

WIDTH, HEIGHT, PATCH, SCALE = 2040, 1356, 96, 4


def make_photos(folder: Path, count: int, different: int = 8) -> Path:
    """`count` PNG files of 2040x1356, `different` of them different (the others are hard links: same work to read)."""
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(count):
        path = folder / f"{k:04}.png"
        if path.exists():
            continue
        if k < different:
            name = ("astronaut", "coffee", "chelsea", "rocket")[k % 4]
            photo = Image.open(demo_photo(name)).convert("RGB").resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)
            noise = np.random.default_rng(k).integers(-3, 4, (HEIGHT, WIDTH, 3))
            Image.fromarray((np.asarray(photo) + noise).clip(0, 255).astype(np.uint8)).save(path)
        else:
            os.link(folder / f"{k % different:04}.png", path)
    return folder


def decode(path: Path) -> float:
    """Seconds of processor time."""
    began = time.process_time()
    Image.open(path).convert("RGB")
    return time.process_time() - began


def plain_pair(path: Path) -> int:
    """The usual dataset class: open, random crop, resize, to tensor."""
    photo = Image.open(path).convert("RGB")
    left, top = random.randrange(photo.width - PATCH), random.randrange(photo.height - PATCH)
    hr = photo.crop((left, top, left + PATCH, top + PATCH))
    to_tensor(hr), to_tensor(hr.resize((PATCH // SCALE, PATCH // SCALE), Image.Resampling.BICUBIC))
    return 1


class Clocks:
    """Seconds by the clock and of this process' processors, since it was made."""
    def __init__(self):
        self.began = time.perf_counter(), time.process_time()

    @property
    def wall(self) -> float:
        return time.perf_counter() - self.began[0]

    @property
    def processor(self) -> float:
        return time.process_time() - self.began[1]


def rate(make, seconds: float) -> np.ndarray:
    """Pairs a second, by the clock and by processor time."""
    clocks, pairs = Clocks(), 0
    while clocks.wall < seconds:
        pairs += make()
    return pairs / np.array([clocks.wall, clocks.processor])


def packing(photos: Path, cache: Path, processes: int, rounds: int = 2) -> Pack:
    files = sorted(photos.iterdir())
    ratios = []
    with ProcessPoolExecutor(processes) as pool:
        list(pool.map(decode, files[:2 * processes]))
        for _ in range(rounds):
            clocks = Clocks()
            used = sum(pool.map(decode, files))
            plain = np.array([clocks.wall, used])
            shutil.rmtree(cache, ignore_errors=True)
            clocks = Clocks()
            pack_photos(photos, cache=cache, workers=processes, progress=False)
            packed = np.array([clocks.wall, clocks.processor])
            ratios.append(packed / plain)
            print(f"  decode {len(files) / plain[0]:5.1f} photos/s, pack {len(files) / packed[0]:5.1f} photos/s")
    wall, processor = np.median(ratios, axis=0)
    print(f"packing / only decoding in {processes} processes: {wall:.2f} by the clock, {processor:.2f} by processor "
          "time (at most 1.5)")
    return pack_photos(photos, cache=cache, progress=False)


def one_process(photos: Path, pack: Pack, rounds: int = 3) -> None:
    files, sampler, steps, ratios = sorted(photos.iterdir()), PatchSampler(pack), iter(range(10**9)), []
    for _ in range(rounds):
        plain = rate(lambda: plain_pair(random.choice(files)), 3)
        packed = rate(lambda: len(sampler.batch(next(steps))[1]), 3)
        ratios.append(packed / plain)
        print(f"  plain {plain[0]:5.1f} pairs/s ({plain[1]:.1f} a processor second), packed with flips and turns "
              f"{packed[0]:7,.0f} pairs/s ({packed[1]:,.0f})")
    wall, processor = np.median(ratios, axis=0)
    print(f"packed / plain in one process: {wall:,.0f} by the clock, {processor:,.0f} by processor time (at least 300)")


def read_for(folder: Path, start: int, seconds: float, barrier, results) -> None:
    sampler, steps = PatchSampler(Pack(folder)), iter(range(start, 10**12))
    sampler.batch(next(steps))
    barrier.wait()
    results.put(rate(lambda: len(sampler.batch(next(steps))[1]), seconds))


def all_cores(pack: Pack, processes: int) -> None:
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(processes), context.Queue()
    for k in range(processes):
        context.Process(target=read_for, args=(pack.folder, k * 10**9, 5.0, barrier, results)).start()
    wall, processor = sum(results.get() for _ in range(processes))
    print(f"{processes} processes together: {wall:,.0f} pairs/s by the clock, {processor:,.0f} if the cores were "
          "theirs alone (at least 6,000 on two cores)")
    for threads in (1, 2):
        batches, pairs, clocks = PatchSampler(pack).batches(0, 10**9, threads=threads, ahead=16), 0, Clocks()
        for lr, _ in batches:
            pairs += len(lr)
            if clocks.wall > 3:
                break
        print(f"  made ahead by {threads} thread(s) of one process: {pairs / clocks.wall:,.0f} pairs/s, "
              f"{pairs / clocks.processor:,.0f} a processor second")


def resident() -> float:
    with open("/proc/self/status", encoding="utf-8") as file:
        return int(next(line for line in file if line.startswith("VmRSS")).split()[1]) / 1024


def memory(photos: Path, cache: Path) -> None:
    if sys.platform != "linux":
        return print("resident memory: only measured on Linux")
    pack = pack_photos(photos, cache=cache, progress=False)
    size = sum((pack.folder / name).stat().st_size for name in ("hr.bin", "lr.bin"))
    sampler = PatchSampler(pack)
    sampler.batch(0)
    pack.files.resident = pack.files.resident_limit
    sampler.batch(1)  # lets go of all
    baseline, most = resident(), 0.0
    for step in range(1500):
        sampler.batch(step)
        most = max(most, resident() - baseline)
    print(f"resident memory while reading a pack of {size / 1e9:.2f} GB: at most {most:,.0f} MB above the baseline of "
          f"{baseline:,.0f} MB (under 600)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=100, help="how many to pack")
    parser.add_argument("--large", type=int, default=260, help="how many for the pack of more than 2 GB; 0: skip it")
    parser.add_argument("--folder", type=Path, help="where to work; photos made there are used again")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp())
    try:
        photos = make_photos(folder / "photos", options.photos)
        sizes = [path.stat().st_size for path in photos.iterdir()]
        print(f"{len(sizes)} PNG photos of {WIDTH}x{HEIGHT} pixels, {np.mean(sizes) / 1e6:.1f} MB each; "
              f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
        pack = packing(photos, folder / "packs of the benchmark", options.processes)
        one_process(photos, pack)
        all_cores(pack, options.processes)
        if options.large:
            memory(make_photos(folder / "many", options.large), folder / "packs of the benchmark")
    finally:
        if options.folder is None:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
