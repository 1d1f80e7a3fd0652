"""Patches: alignment, reach, repeatability, sharing between processes, making ahead, memory."""
import os
import shutil
import sys
import threading
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from srgan_nb import patches
from srgan_nb.bicubic import downsample
from srgan_nb.errors import UserError
from srgan_nb.packs import MappedFiles, Pack, pack_photos
from srgan_nb.patches import ORDERS, Batches, PatchSampler, as_float, choose, lay
from tests.support.waiting import wait_for


@pytest.fixture(scope="module")
def make_pack(tmp_path_factory):
    """Packs of photos whose pixels say where they are: (row, column, number of the photo)."""
    def make(sizes, scale=4, smooth=False):
        folder = tmp_path_factory.mktemp("photos")
        for k, (height, width) in enumerate(sizes):
            rows, columns = np.mgrid[0:height, 0:width]
            pixels = np.stack([rows, columns, np.full_like(rows, 10 * k)], axis=2).astype(np.uint8)
            if smooth:
                pixels = np.random.default_rng(k).integers(0, 256, (height, width, 3), np.uint8)
            Image.fromarray(pixels).save(folder / f"{k:02}.bmp")
        return pack_photos(folder, scale, cache=folder.parent / "packs", minimum=16, progress=False)

    return make


def corner(hr: torch.Tensor) -> list[tuple[int, int, int]]:
    """(photo, top, left) of patches that were not turned."""
    return [(int(patch[2, 0, 0]) // 10, int(patch[0, 0, 0]), int(patch[1, 0, 0])) for patch in hr]


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_shapes_types_and_layout(make_pack, scale):
    lr, hr = PatchSampler(make_pack([(200, 120)] * 3, scale), patch_size=48, batch_size=5).batch(0)
    assert lr.shape == (5, 3, 48 // scale, 48 // scale) and hr.shape == (5, 3, 48, 48)
    assert lr.dtype == hr.dtype == torch.uint8
    for images in (lr, hr, as_float(hr)):
        assert images.is_contiguous(memory_format=torch.channels_last)
    assert as_float(hr).min() >= 0 and as_float(hr).max() <= 1


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_aligned_to_the_bit(make_pack, scale):
    sampler = PatchSampler(make_pack([(120, 104)] * 3, scale, smooth=True), patch_size=96, batch_size=6, augment=False)
    for step in range(10):
        lr, hr = sampler.batch(step)
        assert torch.equal(downsample(hr, scale)[..., 2:-2, 2:-2], lr[..., 2:-2, 2:-2])


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_every_aligned_position_is_reached_and_no_other(make_pack, scale):
    sampler = PatchSampler(make_pack([(96, 80)], scale), patch_size=48, batch_size=16, augment=False)
    corners = Counter(place for step in range(400) for place in corner(sampler.batch(step)[1]))
    expected = {(0, top, left) for top in range(0, 49, scale) for left in range(0, 33, scale)}
    assert set(corners) == expected
    counts = [corners[place] for place in expected]
    mean = 6400 / len(expected)
    assert sum((count - mean) ** 2 / mean for count in counts) < 1.5 * len(expected), "not equally likely"


def test_all_eight_ways_are_equally_likely_and_fit(make_pack):
    pack = make_pack([(96, 96)])
    sampler = PatchSampler(pack, patch_size=96, batch_size=8)
    ways = np.empty((8, 96, 96, 3), np.uint8)
    for turn in range(8):
        lay(pack.hr(0), turn, ways[turn])
    names = {way.tobytes(): turn for turn, way in enumerate(ways)}
    seen = Counter()
    for step in range(200):
        lr, hr = sampler.batch(step)
        for small, large in zip(lr.permute(0, 2, 3, 1).numpy(), hr.permute(0, 2, 3, 1).numpy(), strict=True):
            turn = names[large.tobytes()]
            expected = np.empty_like(small)
            lay(pack.lr(0), turn, expected)
            assert np.array_equal(small, expected)
            seen[turn] += 1
    assert len(seen) == 8 and max(seen.values()) < 1.4 * min(seen.values())


@pytest.mark.parametrize("photos, batch_size", [(20, 16), (16, 16), (5, 16), (1, 4), (3, 3)])
def test_distinct_photos_where_there_are_enough(make_pack, photos, batch_size):
    sampler = PatchSampler(make_pack([(64, 64)] * photos), patch_size=32, batch_size=batch_size, augment=False)
    total = Counter()
    for step in range(100):
        counts = Counter(photo for photo, _, _ in corner(sampler.batch(step)[1]))
        assert set(counts.values()) <= {batch_size // photos, -(-batch_size // photos)}
        total += counts
    assert len(total) == photos and max(total.values()) < 1.6 * min(total.values())


def test_a_step_depends_on_seed_and_step_alone(make_pack):
    pack = make_pack([(100, 100)] * 6, smooth=True)
    first = PatchSampler(pack, 48, 4, seed=1)
    straight = [first.batch(step) for step in range(6)]
    resumed = PatchSampler(Pack(pack.folder), 48, 4, seed=1)
    for step in (5, 3, 4):
        for one, other in zip(straight[step], resumed.batch(step), strict=True):
            assert torch.equal(one, other)
    assert not torch.equal(straight[0][1], straight[1][1])
    assert not torch.equal(straight[0][1], PatchSampler(pack, 48, 4, seed=2).batch(0)[1])
    PatchSampler(pack, 48, 4, seed=-1).batch(10**15)


def test_the_choice_stays_the_same_in_later_versions():
    """These numbers were written down once: a resumed run must go on with the patches it began with."""
    assert [tuple(choice) for choice in choose([(50, 60)] * 9, 24, 4, seed=7, step=123456)] == GOLDEN


GOLDEN = [(7, 20, 26, 2, 11), (0, 11, 14, 3, 11), (1, 10, 4, 4, 2), (4, 23, 24, 1, 6)]  # the order is newer than the patches


def test_other_colours_reduce_alike(make_pack):
    """LR and HR of a recoloured patch still fit, it is the same patch, and all twelve ways come."""
    pack = make_pack([(64, 72)] * 3, smooth=True)
    plain, dyed = (PatchSampler(pack, 48, 12, augment=False, recolour=recolour) for recolour in (False, True))
    seen = set()
    for step in range(20):
        (lr, hr), (as_taken_lr, as_taken_hr) = dyed.batch(step), plain.batch(step)
        for k, choice in enumerate(choose(dyed.sizes, 12, 12, 0, step)):
            order = ORDERS[choice.colours // 2]
            for seen_colours, taken in ((lr[k], as_taken_lr[k]), (hr[k], as_taken_hr[k])):
                expected = taken[list(order)]
                assert torch.equal(seen_colours, 255 - expected if choice.colours % 2 else expected)
            seen.add(choice.colours)
        inside = (downsample(hr).int() - lr.int())[..., 2:-2, 2:-2]
        assert inside.abs().max() <= 1  # of a negative's half
    assert seen == set(range(12))


@pytest.mark.parametrize("world", [1, 2, 4, 8])
def test_shares_make_up_the_batch(make_pack, world):
    sampler = PatchSampler(make_pack([(64, 64)] * 9, smooth=True), 32, 16)
    shares = [sampler.batch(3, rank, world) for rank in range(world)]
    for part, whole in zip(zip(*shares, strict=True), sampler.batch(3), strict=True):
        assert torch.equal(torch.cat(part), whole)


def test_wrong_use_is_said(make_pack):
    pack = make_pack([(64, 64), (32, 400)])
    with pytest.raises(UserError, match="not a multiple of the scale 4"):
        PatchSampler(pack, patch_size=30)
    with pytest.raises(UserError, match="only 32 pixels.*minimum=64"):
        PatchSampler(pack, patch_size=64)
    with pytest.raises(UserError, match="can't be shared equally by 3"):
        PatchSampler(pack, 32, 16).batch(0, 0, 3)


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_reduced_patches_equal_the_pack(make_pack, scale):
    """Bit for bit inside a border of two pixels, where rows and columns are not swapped."""
    sampler = PatchSampler(make_pack([(64, 72)] * 3, scale, smooth=True), 48, 12)
    for step in range(20):
        lr, hr = sampler.batch(step)
        straight = [k for k, choice in enumerate(choose(sampler.sizes, 48 // scale, 12, 0, step)) if choice.turn < 4]
        assert straight and torch.equal(downsample(hr, scale)[straight][..., 2:-2, 2:-2],
                                        lr[straight][..., 2:-2, 2:-2])


@pytest.mark.parametrize("options", [{}, {"threads": 3}, {"ahead": 1}, {"ahead": 50}])
def test_batches_come_in_order_and_are_those_of_their_steps(make_pack, options):
    sampler = PatchSampler(make_pack([(64, 64)] * 5, smooth=True), 32, 4)
    batches = sampler.batches(10, 30, rank=1, world=2, **options)
    assert len(batches) == 20
    for step, (lr, hr) in enumerate(batches, start=10):
        expected = sampler.batch(step, 1, 2)
        assert torch.equal(lr, expected[0]) and torch.equal(hr, expected[1])
    assert step == 29


def test_waiting_is_counted_and_hidden_by_making_ahead(make_pack, monkeypatch):
    "By a clock that ticks once for every batch that is made, and at no other time."
    sampler = PatchSampler(make_pack([(64, 64)]), 32, 2)
    ticks = []
    asked, made = threading.Event(), threading.Semaphore(0)

    def now():
        asked.set()
        return len(ticks)

    def batch_and_tick(*which):
        asked.wait()
        ticks.append(which)
        made.release()
        return sampler.batch(*which)

    monkeypatch.setattr(patches, "time", SimpleNamespace(perf_counter=now))
    batches = iter(reader := Batches(SimpleNamespace(batch=batch_and_tick), range(10), ahead=4))
    next(batches)
    assert reader.waited >= 1, "nothing was made before the reader asked"
    waited = reader.waited
    for already_made in (5, 1, 1):  # the one that came and the four after it; then one more each time
        for _ in range(already_made):
            made.acquire()
        next(batches)
    assert reader.waited == waited


def test_an_error_in_the_background_reaches_the_reader(make_pack):
    with pytest.raises(UserError, match="shared equally"):
        list(PatchSampler(make_pack([(64, 64)]), 32, 4).batches(0, 5, 0, 3))


def test_a_reader_that_leaves_early_leaves_no_thread(make_pack):
    sampler = PatchSampler(make_pack([(64, 64)]), 32, 4)  # packing starts tqdm's watching thread, which stays for good
    before = set(threading.enumerate())
    for _ in sampler.batches(0, 10**9):
        break
    wait_for(lambda: set(threading.enumerate()) <= before, "the end of the threads that the reader had")


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batches_on_cuda(make_pack):
    sampler = PatchSampler(make_pack([(64, 64)] * 5, smooth=True), 32, 4)
    for step, (lr, hr) in enumerate(sampler.batches(0, 5, device="cuda")):
        assert lr.is_cuda and hr.is_cuda
        assert torch.equal(lr.cpu(), sampler.batch(step)[0]) and torch.equal(hr.cpu(), sampler.batch(step)[1])


def test_a_part_of_a_batch_is_a_random_part():
    "Where there are no more photos than patches too: a loss that looks at the first ones meets all photos alike."
    for photos, count in ((12, 8), (5, 8), (8, 8)):
        first = [choose([(64, 64)] * photos, 16, count, seed=0, step=step)[0].photo for step in range(100 * photos)]
        assert min(first.count(photo) for photo in range(photos)) > 60  # of 100; the deviation is about 9.5


def resident() -> int:
    "The bytes of mapped files that are in memory; those of a file system that is itself in memory are counted apart."
    with open("/proc/self/status", encoding="utf-8") as file:
        return sum(int(line.split()[1]) * 1024 for line in file if line.startswith(("RssFile", "RssShmem")))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_mapped_memory_stays_under_its_limit(make_pack, monkeypatch):
    pack = make_pack([(1000, 1000)] * 20, smooth=True)  # 60 MB
    sampler, before, most = PatchSampler(pack, batch_size=4), resident(), 0
    monkeypatch.setattr(MappedFiles, "resident_limit", 1e9)
    for step in range(200):
        sampler.batch(step)
    assert resident() - before > 45e6, "without the limit the whole pack becomes resident"
    monkeypatch.setattr(MappedFiles, "resident_limit", 20e6)
    for step in range(200):
        sampler.batch(step)
        most = max(most, resident() - before if step > 5 else 0)  # from the first release on
    assert most < 35e6, f"{most / 1e6:.0f} MB"


def test_processes_of_a_data_loader_can_share_a_pack(make_pack):
    """A pack goes to other processes as a path: each maps the same files."""
    sampler = PatchSampler(make_pack([(64, 64)] * 5, smooth=True), 32, 4)

    class Steps(torch.utils.data.Dataset):
        def __len__(self):
            return 6

        def __getitem__(self, step):
            return sampler.batch(step)

    loader = torch.utils.data.DataLoader(Steps(), batch_size=None, num_workers=1 if os.name != "nt" else 0)
    for step, (_, hr) in enumerate(loader):
        assert torch.equal(hr, sampler.batch(step)[1])


def test_batches_is_what_the_sampler_gives(make_pack):
    assert isinstance(PatchSampler(make_pack([(64, 64)]), 32, 4).batches(0, 1), Batches)


def test_a_run_among_the_photos_is_none_of_them(photos, trained, tmp_path):
    folder, options = tmp_path / "photos", dict(cache=tmp_path / "packs", minimum=16, progress=False)
    shutil.copytree(photos, folder)
    before = pack_photos(folder, **options)
    shutil.copytree(trained, folder / "runs/one")
    assert list((folder / "runs/one").rglob("*.png")), "a run has sample strips"
    with_run = pack_photos(folder, **options)
    assert with_run.hash == before.hash and with_run.skipped == [("runs/one", "a training run, not photographs")]
    with pytest.raises(UserError, match="a training run, not photographs"):
        pack_photos(folder / "runs/one", **options)
    assert pack_photos(folder / "runs/one/samples", **options).names, "who names the samples means them"
