"""What the notebooks 64 to 67 can't hold: layouts and faults of sets, every kind of model, reports, mixed networks."""

import csv
import io
import json
import math
import re
import shutil
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from srgan_nb.bicubic import downsample, upsample_bicubic
from srgan_nb.checkpoints import save_generator
from srgan_nb.errors import UserError
from srgan_nb.evaluation import (
    PUBLISHED,
    Evaluation,
    enlarge_dataset,
    evaluate,
    find_dataset,
    find_model,
    find_pairs,
    interpolate_generators,
    made_elsewhere,
    paired_intervals,
    perception_distortion,
    read_made,
    read_pair,
    score,
)
from srgan_nb.generator import Generator
from srgan_nb.images import demo_photo, read_image, save_image, to_signed
from srgan_nb.metrics import psnr
from srgan_nb.packs import partners
from srgan_nb.reports import (
    BlindComparison,
    blind_widget,
    comparison,
    intervals_to_markdown,
    save_comparisons,
    save_report,
    table_rows,
    to_csv,
    to_json,
    to_markdown,
    wilson_interval,
)


@pytest.fixture(scope="module")
def photo():
    return read_image(demo_photo("chelsea"))[:, 60:156, 80:192]  # (3, 96, 112)


@pytest.fixture
def dataset(tmp_path, photo):
    "A folder of two HRs, a and b, the second one grey."
    folder = tmp_path / "mine"
    folder.mkdir()
    save_image(photo, folder / "a.png")
    save_image(photo.mean(0, keepdim=True), folder / "b.png")
    return folder


def small(seed=0, scale=4, batch_norm=False):
    torch.manual_seed(seed)
    network = Generator(scale=scale, channels=8, blocks=2, kernel_size=3, batch_norm=batch_norm, bicubic_skip=True)
    for value in network.state_dict().values():
        if value.is_floating_point():
            value.add_(0.02 * torch.randn_like(value).abs())
    return network.eval()


# sets

def test_layouts_give_the_same_pairs(tmp_path, photo):
    small_photo = downsample(photo)
    layouts = {"HR+LRx4": ("HR", "LRx4", "{}"), "EDSR": ("HR", "LR_bicubic/X4", "{}x4"), "plain": ("HR", "LR", "{}")}
    read = []
    for layout, (hr_folder, lr_folder, lr_name) in layouts.items():
        (tmp_path / layout / hr_folder).mkdir(parents=True)
        (tmp_path / layout / lr_folder).mkdir(parents=True)
        save_image(photo, tmp_path / layout / hr_folder / "cat.png")
        save_image(small_photo, tmp_path / layout / lr_folder / (lr_name.format("cat") + ".png"))
        (tmp_path / layout / hr_folder / ".hidden").write_text("not a picture, and not looked at")
        pairs, alone = find_pairs(tmp_path / layout)
        assert [name for name, *_ in pairs] == ["cat"] and not alone
        read.append(read_pair(*pairs[0][1:]))
    for lr, hr in read:
        assert torch.equal(lr, small_photo) and torch.equal(hr, photo)


def test_a_name_that_itself_ends_in_x4_finds_its_own_lr():
    "Packing and scoring go by one rule: the same name first, x4 behind it only where no HR has that name."
    assert partners(["cat.png", "catx4.png", "dog.jpg"], ["cat.png", "catx4.png", "dogx4.png"], 4) == {
        "cat.png": "cat.png", "catx4.png": "catx4.png", "dog.jpg": "dogx4.png"}
    assert partners(["cat.png", "catx4.png"], ["catx4.png"], 4) == {"catx4.png": "catx4.png"}
    assert partners(["in/cat.png", "cat.png"], ["in/catx4.png"], 4) == {"in/cat.png": "in/catx4.png"}
    assert not partners(["cat.png"], ["catx4.png"], 2)


def test_hr_alone_is_cut_and_shrunk(tmp_path, photo):
    save_image(photo[:, :-1, :-3], tmp_path / "cat.png")  # 95 x 109
    lr, hr = read_pair(tmp_path / "cat.png", None)
    assert torch.equal(hr, photo[:, :92, :108]) and torch.equal(lr, downsample(photo[:, :92, :108]))
    lr, hr = read_pair(tmp_path / "cat.png", None, scale=8)
    assert hr.shape == (3, 88, 104) and lr.shape == (3, 11, 13)


@pytest.mark.parametrize("cut,fits", [((0, 0), True), ((3, 3), True), ((4, 0), False), ((0, -1), False)])
def test_hr_may_exceed_its_lr_by_less_than_the_scale(tmp_path, photo, cut, fits):
    lr = downsample(photo)[:, :20, :20]
    save_image(lr, tmp_path / "lr.png")
    save_image(photo[:, :80 + cut[0], :80 + cut[1]], tmp_path / "hr.png")
    if fits:
        assert read_pair(tmp_path / "hr.png", tmp_path / "lr.png")[1].shape == (3, 80, 80)
    else:
        with pytest.raises(UserError, match="and LR 20x20: not 4 times"):
            read_pair(tmp_path / "hr.png", tmp_path / "lr.png")


def test_sets_are_found_by_name_and_missing_ones_told(tmp_path, monkeypatch):
    monkeypatch.setenv("SRGAN_NB_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="no folder 'Set5'.*srgan_download"):
        find_dataset("Set5")
    for place in ("data", "."):  # the nearest wins
        (tmp_path / place / "Set5").mkdir(parents=True)
        assert find_dataset("Set5").resolve() == (tmp_path / place / "Set5").resolve()


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match="holds no pictures"):
        evaluate(tmp_path, "bicubic", progress=False)


def test_given_lrs_of_the_benchmarks_are_used(shared):
    folder = shared / "data/benchmarks/Set5"
    given = evaluate(folder, "bicubic", limit=1, progress=False)
    made = evaluate(folder / "HR", "bicubic", limit=1, progress=False)
    assert (given.lr, made.lr) == ("given", "made by bicubic")
    assert given.rows == made.rows, "our LRs are MATLAB's"


def test_published_rows_are_complete_and_plausible():
    for entry in PUBLISHED:
        assert set(entry.scores) <= {"Set5", "Set14", "BSD100"} and entry.ssim in ("wang", "uniform", "daala")
        assert list(entry.scores)[:2] == ["Set5", "Set14"]
        decibels = [decibel for decibel, _ in entry.scores.values()]
        assert decibels == sorted(decibels, reverse=True) and all(20 < decibel < 33 for decibel in decibels)
        assert all(0.5 < similarity < 0.91 for _, similarity in entry.scores.values())


# models

def test_every_kind_of_model_gives_its_own_picture(tmp_path, dataset):
    network = small()
    save_generator(network, tmp_path / "weights.safetensors", {"recipe": {"stage": "srresnet", "content": "L1"}})
    (tmp_path / "run").mkdir()
    save_generator(network, tmp_path / "run/generator.safetensors")
    lr, hr = read_pair(dataset / "a.png", None)
    with torch.no_grad():
        expected = psnr(network(lr[None])[0], hr).item()
    results = {}
    for model in (network, tmp_path / "weights.safetensors", str(tmp_path / "run"), lambda lr: network(lr),
                  torch.nn.Sequential(network).train()):
        result = evaluate(dataset, model, device="cpu", limit=1, progress=False)
        results[result.model.name] = result
        assert result.rows[0]["psnr_y"] == pytest.approx(expected, abs=0.01)
    assert {"Generator", "Sequential", "<lambda>"} < set(results)
    assert find_model(tmp_path / "weights.safetensors", device="cpu").like == "SRResNet-MSE"


def test_batch_norm_is_in_evaluation_mode():
    network = small(batch_norm=True).train()
    model = find_model(network, device="cpu")
    lr = torch.rand(1, 3, 16, 20)
    with torch.no_grad():
        assert torch.allclose(model.upscale(lr), network.eval()(lr).clamp(0, 1), atol=1e-4)


def test_other_scales(dataset):
    assert evaluate(dataset, small(scale=2), device="cpu", progress=False).model.scale == 2
    assert evaluate(dataset, "bicubic", scale=8, progress=False).rows[0]["psnr_y"] < \
        evaluate(dataset, "bicubic", scale=2, progress=False).rows[0]["psnr_y"]
    with pytest.raises(UserError, match="enlarges by 2, not by 4"):
        evaluate(dataset, small(scale=2), scale=4, progress=False)
    with pytest.raises(UserError, match="that is not x4"):
        evaluate(dataset, lambda lr: lr, progress=False)
    with pytest.raises(UserError, match="no generator 'nothing'"):
        evaluate(dataset, "nothing", progress=False)


# evaluations

def test_bad_pictures_are_told_and_the_rest_is_scored(dataset, photo):
    alone = evaluate(dataset, "bicubic", progress=False)
    (dataset / "notes.txt").write_text("text")
    (dataset / "torn.png").write_bytes((dataset / "a.png").read_bytes()[:3000])
    save_image(photo[:, :16, :16], dataset / "tiny.png")
    save_image(photo[:, :3, :16], dataset / "flat.png")
    (dataset / "folder").mkdir()
    result = evaluate(dataset, "bicubic", progress=False)
    assert result.rows == alone.rows and [row["name"] for row in result.rows] == ["a", "b"]
    reasons = dict(result.omitted)
    assert set(reasons) == {"notes", "torn", "tiny", "flat"}
    assert all(reason and "\n" not in reason for reason in reasons.values()), "one clear line each"


def test_a_note_beside_a_picture_made_elsewhere_is_no_second_picture(dataset, tmp_path):
    theirs = shutil.copytree(dataset, tmp_path / "theirs")
    (theirs / "a.json").write_text("{}")
    assert len(evaluate(dataset, made_elsewhere(theirs), progress=False).rows) == 2


def test_the_second_of_two_files_of_one_name_is_told(tmp_path, photo):
    for name in ("a.png", "a.jpg", "b.png"):
        save_image(photo, tmp_path / name)
    (tmp_path / "b.json").write_text("{}")  # its name comes first, and it is no picture
    (tmp_path / "LRx4").mkdir()
    for name in ("a.png", "ax4.png", "b.png"):
        save_image(downsample(photo), tmp_path / "LRx4" / name)
    pairs, left_out = find_pairs(tmp_path)
    assert [(name, hr.name, lr.name) for name, hr, lr in pairs] == [("a", "a.jpg", "a.png"), ("b", "b.png", "b.png")]
    assert left_out == [("a.png", f"another file of this name in {tmp_path.name} was taken: a.jpg"),
                        ("b.json", f"another file of this name in {tmp_path.name} was taken: b.png"),
                        ("ax4", f"no HR of this name in {tmp_path.name}")]
    result = evaluate(tmp_path, "bicubic", progress=False)
    assert len(result.rows) == 2 and result.omitted == left_out


def test_grey_is_grey_in_every_kind_of_file(dataset, photo):
    levels = (photo.mean(0) * 255).round().numpy()
    (dataset / "a.png").unlink()
    Image.fromarray((levels * 257).astype("uint16")).save(dataset / "sixteen.png")
    Image.fromarray((levels * 257).astype("uint16")).save(dataset / "scan.tif")
    Image.fromarray(levels.astype("uint8")).save(dataset / "with alpha.png")
    grey = Image.open(dataset / "with alpha.png")
    grey.putalpha(255)
    grey.save(dataset / "with alpha.png")
    scores = [row["grey"] for row in evaluate(dataset, "bicubic", progress=False).rows]
    assert len(scores) == 4 and scores[0] and scores == scores[:1] * 4


def test_pictures_made_elsewhere_are_scored_as_if_their_model_were_here(tmp_path, dataset):
    made, here = tmp_path / "theirs", evaluate(dataset, "bicubic", progress=False)
    made.mkdir()
    for ending, (name, _, sr, _) in zip(("", "x4"), enlarge_dataset(dataset, find_model("bicubic")), strict=True):
        save_image(sr, made / f"{name}{ending}.png")
    theirs = evaluate(dataset, made_elsewhere(made), progress=False)
    for ours, read in zip(here.rows, theirs.rows, strict=True):
        assert read["name"] == ours["name"] and read["psnr_y"] == pytest.approx(ours["psnr_y"], abs=0.01)
    with pytest.raises(UserError, match="made before"):
        theirs.model.upscale(torch.rand(1, 3, 8, 8))


def test_a_picture_made_elsewhere_belongs_to_the_longest_name_with_which_it_begins(tmp_path, dataset):
    made, hr = tmp_path / "theirs", torch.rand(3, 96, 112)
    made.mkdir()
    save_image(hr, made / "a_b_theirs.png")
    assert read_made(made, "a_b", ["a", "a_b"], hr, 4).shape == read_made(made, "a", ["a"], hr, 4).shape == hr.shape
    with pytest.raises(UserError, match="no picture in"):
        read_made(made, "a", ["a", "a_b"], hr, 4)
    save_image(hr, made / "a_theirs.png")
    assert read_made(made, "a", ["a", "a_b"], hr, 4).shape == hr.shape


@pytest.mark.parametrize("files, told", [
    ({}, "no picture in"), ({"b_one.png": (112, 96), "b_two.png": (112, 96)}, "several pictures .* b_one.png, b_two.png"),
    ({"b.png": (112, 100)}, "b.png is 112x100 and HR 112x96"), ({"b.png": (56, 48)}, "b.png is 56x48 and HR 112x96"),
])
def test_what_is_missing_among_pictures_made_elsewhere_is_told(files, told, tmp_path, dataset):
    made = tmp_path / "theirs"
    made.mkdir()
    for name, size in {"a_theirs.png": (115, 99), **files}.items():  # a: of the HR before it was cut to a multiple of 4
        Image.new("RGB", size).save(made / name)
    result = evaluate(dataset, made_elsewhere(made), progress=False)
    assert [row["name"] for row in result.rows] == ["a"]
    (name, reason), = result.omitted
    assert name == "b" and re.search(told, reason)


def test_intervals_are_of_pairs(dataset):
    "A gain that is the same on every picture has no width, however different the pictures are; a mixed one holds 0."
    def scored(values):
        rows = [{"name": str(number), "grey": None, "psnr_y": value} for number, value in enumerate(values)]
        return Evaluation("set", find_model("bicubic"), "given", rows)

    base = [20.0, 30.0, 40.0, 25.0]
    steady = paired_intervals(scored(base), scored([value + 1 for value in base]))["psnr_y"]
    assert steady == pytest.approx((1, 1, 1))
    mean, low, high = paired_intervals(scored(base), scored([21.0, 29.0, 41.0, 24.0]))["psnr_y"]
    assert mean == 0 and low < 0 < high
    assert (low, high) == paired_intervals(scored(base), scored([21.0, 29.0, 41.0, 24.0]))["psnr_y"][1:]
    with pytest.raises(UserError, match="1 scored pictures in common"):
        paired_intervals(scored(base), scored(base[:1]))


def test_nothing_scored_is_an_error(tmp_path):
    (tmp_path / "notes.txt").write_text("text")
    with pytest.raises(UserError, match="no picture of .* could be scored .*notes"):
        evaluate(tmp_path, "bicubic", progress=False)


def test_means_and_the_grey_rule(dataset):
    result = evaluate(dataset, "bicubic", progress=False)
    first, grey = result.rows
    assert first["grey"] is None
    assert grey["psnr_y"] - grey["grey"]["psnr_y"] == pytest.approx(20 * math.log10(255 / 219), abs=1e-9)
    for name in ("psnr_y", "ssim_y", "ssim_y_daala"):
        assert result.mean[name] == pytest.approx((first[name] + grey[name]) / 2)
        assert result.mean_own_grey[name] == pytest.approx((first[name] + grey["grey"][name]) / 2)


@pytest.mark.slow
def test_lpips_is_a_column_or_an_error(dataset, monkeypatch, tmp_path, shared):
    measured = evaluate(dataset, "bicubic", lpips_net="squeeze", limit=1, progress=False)
    assert 0 < measured.mean["lpips"] < 1 and "LPIPS (squeeze)" in to_markdown([measured])
    assert json.loads(to_json([measured]))[0]["lpips_net"] == "squeeze" and "squeeze" in to_csv([measured])
    assert "lpips" not in evaluate(dataset, "bicubic", limit=1, progress=False).mean
    with pytest.raises(UserError, match="no LPIPS network 'resnet'"):
        evaluate(dataset, "bicubic", lpips_net="resnet", progress=False)


def test_a_model_that_answers_nan_is_seen(dataset):
    result = evaluate(dataset, lambda lr: upsample_bicubic(lr) * math.nan, progress=False)
    assert math.isnan(result.mean["psnr_y"])


def test_enlarge_dataset_hands_out_what_is_scored(dataset):
    result = evaluate(dataset, "bicubic", progress=False)
    again = [{"name": name, **score(sr, hr)} for name, _, sr, hr in enlarge_dataset(dataset, find_model("bicubic"))]
    assert again == result.rows


@pytest.mark.slow
@pytest.mark.parametrize("name,expected,own_grey", [("Set5", 28.430, 28.430), ("Set14", 26.088, 25.993)])
def test_bicubic_on_the_given_lrs(shared, name, expected, own_grey):
    result = evaluate(shared / "data/benchmarks" / name, "bicubic", progress=False)
    assert result.mean["psnr_y"] == pytest.approx(expected, abs=0.005)
    assert result.mean_own_grey["psnr_y"] == pytest.approx(own_grey, abs=0.005)
    assert abs(result.difference["psnr_y"]) < 0.01 and abs(result.difference["ssim_y_daala"]) < 0.00005
    assert [row["name"] for row in result.rows if row["grey"]] == (["img_003"] if name == "Set14" else [])


@pytest.mark.slow
def test_bicubic_on_bsd100(shared):
    result = evaluate(shared / "data/benchmarks/BSD100", "bicubic", progress=False)
    assert len(result.rows) == 100 and result.mean["psnr_y"] == pytest.approx(25.961, abs=0.005)


# reports

def test_all_forms_tell_the_same(dataset):
    (dataset / "no|tes.txt").write_text("text")
    results = [evaluate(dataset, model, progress=False) for model in ("bicubic", lambda lr: upsample_bicubic(lr) / 2)]
    rows = [row for result in results for row in table_rows(result)]
    as_csv = list(csv.DictReader(io.StringIO(to_csv(results))))
    as_json = [row for one in json.loads(to_json(results)) for row in one["rows"]]
    assert len(as_csv) == len(as_json) == len(rows) == 2 * (3 + 2 + 1)
    for row, from_csv, from_json in zip(rows, as_csv, as_json, strict=True):
        assert row == from_json
        assert row.get("psnr_y", "") == (float(from_csv["psnr_y"]) if from_csv["psnr_y"] else "")
    lines = to_markdown(results).splitlines()
    tables = [line for line in lines if line.startswith("|")]
    assert len(tables) == 2 * (2 + 6) and len({line.replace("\\|", "").count("|") for line in tables}) == 1
    assert not any(line.startswith("|  |") for line in to_markdown(results, pictures=False).splitlines())


def whole_set5(dataset):
    "As many pictures as Set5 has, and so named."
    set5 = dataset.rename(dataset.parent / "Set5")
    for number in range(5 - len(list(set5.glob("*.png")))):
        shutil.copy(min(set5.glob("*.png")), set5 / f"more{number}.png")
    return set5


def test_the_papers_row_and_the_difference(dataset):
    set5 = whole_set5(dataset)
    rows = {row["row"]: row for row in table_rows(evaluate(set5, "bicubic", progress=False))}
    assert rows["paper"] == {"row": "paper", "name": "bicubic", "psnr_y": 28.43, "ssim_y_daala": 0.8211}
    assert rows["difference"]["psnr_y"] == pytest.approx(rows["mean, own grey"]["psnr_y"] - 28.43)
    assert "paper" not in {row["row"] for row in table_rows(evaluate(set5, "bicubic", scale=2, progress=False))}


def test_a_part_of_a_set_is_not_compared_with_the_papers_whole_sets(dataset):
    set5 = whole_set5(dataset)
    rows = {row["row"] for row in table_rows(evaluate(set5, "bicubic", limit=1, progress=False))}
    assert not rows & {"paper", "difference"}
    min(set5.glob("*.png")).write_bytes(b"torn")
    result = evaluate(set5, "bicubic", progress=False)
    assert result.omitted and not result.paper and not result.difference


def test_a_model_that_paints_on_the_signed_range_is_refused(dataset):
    with pytest.raises(UserError, match=r"pictures are in \[0, 1\]"):
        evaluate(dataset, lambda lr: to_signed(upsample_bicubic(lr)), progress=False)


def test_two_folders_of_one_name_are_two_sets(tmp_path, photo):
    for where, picture in (("one", photo), ("two", photo.flip(1))):
        for name in "ab":
            (tmp_path / where / "HR").mkdir(parents=True, exist_ok=True)
            save_image(picture, tmp_path / where / f"HR/{name}.png")
    models = find_model("bicubic"), find_model(small())
    results = [evaluate(tmp_path / where / "HR", model, progress=False) for model in models for where in ("one", "two")]
    assert [line for line in intervals_to_markdown(results).splitlines() if line.startswith("###")] == 2 * [
        f"### HR, {models[1].name} minus bicubic"]


@pytest.mark.parametrize("model", [["bicubic", "srgan"], None, np.zeros(3)])
def test_what_is_no_model_is_refused(model, dataset):
    with pytest.raises(UserError, match="a model is a name, a path, a module or a function, not .*; one at a time"):
        evaluate(dataset, model, progress=False)


def test_infinite_scores_stay_valid_json(dataset):
    _, hr = read_pair(dataset / "a.png", None)
    result = evaluate(dataset, lambda lr: hr[None], limit=1, progress=False)
    assert math.isinf(result.mean["psnr_y"])
    row = json.loads(to_json([result]), parse_constant=pytest.fail)[0]["rows"][0]
    assert row["psnr_y"] is None and row["ssim_y"] == 1


def test_reports_are_written_by_their_ending(tmp_path, dataset):
    results = [evaluate(dataset, "bicubic", progress=False)]
    for ending, form in ((".md", to_markdown), (".csv", to_csv), (".json", to_json)):
        save_report(results, tmp_path / f"table{ending}")
        assert (tmp_path / f"table{ending}").read_text(encoding="utf-8") == form(results)
    with pytest.raises(UserError, match=r"must end in .md, .csv, .json"):
        save_report(results, tmp_path / "table.xlsx")


def one_pixel_pairs(pairs, hr=False, **options):
    black, white, grey = ([torch.full((3, 1, 1), value)] * pairs for value in (0.0, 1.0, 0.5))
    return BlindComparison(black, white, ("black", "white"), grey if hr else None, **options)


@pytest.mark.parametrize("hr", [False, True])
def test_a_known_preference_is_found_blindly(hr):
    for pairs in (1, 7, 8):
        comparing, sides = one_pixel_pairs(pairs, hr, seed=pairs), []
        while comparing.remaining:
            left, *middle, right = (crop.mean().item() for crop in comparing.crops())
            assert middle == ([0.5] if hr else []) and {left, right} == {0, 1}
            sides.append("left" if left == 0 else "right")
            comparing.answer(sides[-1])
        assert comparing.result() == {"black": (pairs, *wilson_interval(pairs, pairs)),
                                      "white": (0, *wilson_interval(0, pairs))}
        assert sides.count("left") == (pairs + 1) // 2, "each side as often"


def test_every_pair_is_asked_once_and_the_seed_is_the_order():
    crops = [torch.full((3, 2, 2), value / 16) for value in range(16)]

    def dealt(seed):
        comparing, shown = BlindComparison(crops, [crop + 1 / 32 for crop in crops], ("a", "b"), seed=seed), []
        while comparing.remaining:
            shown.append([crop.mean().item() for crop in comparing.crops()])
            comparing.answer("left")
        return shown

    assert sorted(map(min, dealt(1))) == [crop.mean().item() for crop in crops]
    assert all(abs(one - other) == 1 / 32 for one, other in dealt(1)), "one spot in both"
    assert dealt(1) == dealt(1) != dealt(2)


def test_wilsons_interval():
    assert wilson_interval(7, 10) == pytest.approx((0.3968, 0.8922), abs=1e-4)
    assert wilson_interval(0, 10) == pytest.approx((0, 0.2775), abs=1e-4)


def test_a_blind_comparison_refuses_what_would_spoil_it():
    crops = [torch.zeros(3, 4, 4)] * 2
    for wrong in [([], [], ("a", "b")), (crops, crops[:1], ("a", "b")), (crops, crops, ("a", "a")),
                  (crops, [torch.zeros(3, 4, 5)] * 2, ("a", "b")), (crops, crops, ("a", "b"), crops[:1])]:
        with pytest.raises(UserError, match="pairs of one size"):
            BlindComparison(*wrong)
    comparing = one_pixel_pairs(2)
    with pytest.raises(UserError, match="left or right"):
        comparing.answer("black")
    comparing.answer("left")
    with pytest.raises(UserError, match="before the end: 1 pair without"):
        comparing.result()
    comparing.answer("left")
    for too_late in (comparing.crops, lambda: comparing.answer("left")):
        with pytest.raises(UserError, match="every pair"):
            too_late()


def test_the_blind_widget_names_nothing_before_the_end(monkeypatch, caplog):
    pytest.importorskip("ipywidgets")
    view, buttons, note = blind_widget(one_pixel_pairs(3, hr=True), zoom=2).children
    assert Image.open(io.BytesIO(view.value)).size == (2 * 3 * 5, 2)
    for remaining in ("3 pairs", "2 pairs", "1 pair"):
        assert remaining in note.value and "black" not in note.value
        buttons.children[1].click()
    assert re.fullmatch(r"black: (1|2) times, \d+% to \d+%; white: (1|2) times, \d+% to \d+%", note.value)
    assert all(button.disabled for button in buttons.children)
    after = note.value
    buttons.children[0].click()  # a second click that was already on its way
    assert note.value == after and not caplog.records, "ipywidgets logs what a click raises"
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    with pytest.raises(UserError, match="pip install ipywidgets"):
        blind_widget(one_pixel_pairs(1))


def test_comparisons_show_the_four_pictures(tmp_path, dataset, photo):
    evaluate(dataset, "bicubic", each=save_comparisons(tmp_path / "seen"), progress=False)
    assert sorted(path.name for path in (tmp_path / "seen").iterdir()) == ["mine_a_bicubic.png", "mine_b_bicubic.png"]
    lr = downsample(photo)
    sheet = comparison(lr, torch.ones_like(photo), photo, "white", size=32, zoom=2)
    whole = round(photo.shape[2] * 64 / photo.shape[1])
    assert sheet.size == (whole + 4 * (64 + 4), 64 + 22)
    assert comparison(lr, upsample_bicubic(lr), photo, "bicubic", size=32, zoom=2).size == sheet.size
    panel = sheet.crop((whole + 4 + 2 * 68, 22, whole + 4 + 2 * 68 + 64, 22 + 64))  # the third one: the model's
    assert panel.getextrema() == ((255, 255),) * 3
    shown = sheet.crop((whole + 4 + 3 * 68, 22, whole + 4 + 3 * 68 + 64, 22 + 64)).resize((32, 32), Image.NEAREST)
    crops = [photo[:, top:top + 32, left:left + 32] for top in range(0, 65, 4) for left in range(0, 81, 4)]
    pixels = torch.tensor(list(shown.get_flattened_data() if hasattr(shown, "get_flattened_data") else shown.getdata()))
    pixels = pixels.view(32, 32, 3).permute(2, 0, 1) / 255
    assert any(torch.allclose(crop, pixels, atol=1e-6) for crop in crops), "the last panel is a piece of HR"


# mixed networks

@pytest.mark.parametrize("batch_norm", [False, True])
def test_interpolation_mixes_every_number(batch_norm):
    first, second = small(0, batch_norm=batch_norm), small(1, batch_norm=batch_norm)
    before = {name: value.clone() for name, value in first.state_dict().items()}
    mixed = interpolate_generators(first, second, 0.25)
    assert not mixed.training
    for name, value in mixed.state_dict().items():
        a, b = first.state_dict()[name], second.state_dict()[name]
        expected = 0.75 * a + 0.25 * b if a.is_floating_point() else a
        torch.testing.assert_close(value, expected)
        assert torch.equal(a, before[name]), "the first network stays as it was"
    lr = torch.rand(1, 3, 12, 12)
    for amount, end in ((0.0, first), (1.0, second)):
        assert torch.equal(interpolate_generators(first, second, amount)(lr), end(lr))


def test_only_networks_of_one_shape_are_mixed():
    with pytest.raises(UserError, match="only generators of one shape"):
        interpolate_generators(small(), small(batch_norm=True), 0.5)


def test_the_curve_scores_what_the_mixture_makes(photo):
    first, second = small(0), small(1)
    rows = perception_distortion(first, second, [(downsample(photo), photo)], (0, 0.5), lpips_net=None)
    assert [row["amount"] for row in rows] == [0, 0.5] and "lpips" not in rows[0]
    with torch.no_grad():
        middle = interpolate_generators(first, second, 0.5)(downsample(photo)[None])[0]
    assert rows[1]["psnr_y"] == pytest.approx(psnr(middle, photo).item(), abs=0.01)


@pytest.mark.parametrize(("stage", "content", "row"), [
    ("srresnet", "L1", "SRResNet-MSE"), ("srgan", "VGG22", "SRGAN-VGG22"), ("srgan", "VGG22+VGG31", None),
    ("srgan", "VGG54", "SRGAN-VGG54"),
    ("srgan", "VGG12+VGG22+VGG33+VGG43", None),
])
def test_a_recipe_is_set_beside_the_row_of_the_paper_that_has_its_content_loss(tmp_path, stage, content, row):
    weights = tmp_path / "weights.safetensors"
    save_generator(Generator(channels=4, blocks=1), weights, {"recipe": {"stage": stage, "content": content}})
    assert find_model(weights).like == row
