"""`make demo`, cut short: stopped, it says what was saved; run again, it goes on to its picture and its table."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import ROOT
from tests.support.processes import run_module
from tests.support.waiting import wait_for

WITHOUT_WEIGHTS = {name: value for name, value in os.environ.items()
                   if name not in ("SRGAN_NB_SHARED", "SRGAN_NB_VGG", "SRGAN_NB_VGG16")}
DEMO = ["srgan_nb.demo", "--out", "demo", "--steps"]


def run_demo(steps: int, folder: Path) -> str:
    "Everything that a demo prints which goes on where one stands; it must end well."
    done = run_module([*DEMO, str(steps), "--out", "."], folder, WITHOUT_WEIGHTS)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout + done.stderr


def stopped_demo(folder: Path) -> tuple[int, str]:
    "Starts a long demo, presses Ctrl-C when it is under way; the exit status and what it wrote on stderr."
    with open(folder / "stderr", "w", encoding="utf-8") as log:
        demo = subprocess.Popen([sys.executable, "-m", *DEMO, "100000"], cwd=folder, env=WITHOUT_WEIGHTS,
                                stdout=subprocess.DEVNULL, stderr=log)
    try:
        wait_for(lambda: (folder / "demo/srresnet/log.csv").exists() or demo.poll() is not None, "the first logged row")
        demo.send_signal(signal.SIGINT)
        return demo.wait(), (folder / "stderr").read_text()
    finally:
        demo.kill()


@pytest.mark.slow
def test_stopped_and_run_again(tmp_path: Path) -> None:
    "The second time in its folder, where its runs have the names of the shipped weights, and are not taken for them."
    status, said = stopped_demo(tmp_path)
    assert status == 128 + signal.SIGINT
    assert "what was learned is in demo" in said and "Run the same command to go on" in said and "Traceback" not in said
    saved = max(int(path.stem.split("-")[1]) for path in (tmp_path / "demo/srresnet/checkpoints").glob("step-*"))
    assert saved >= 2

    printed = run_demo(saved + 1, tmp_path / "demo")
    assert (tmp_path / "demo/srgan/generator.safetensors").exists()
    assert f"steps {saved} to {saved + 1}" in printed, "the second run goes on where the first one stopped"
    assert "It starts from the SRResNet that comes with the package" in printed, "what stands in is said, never silent"
    assert "no VGG19 is needed" in printed and "what stage 2 changed: fine detail" in printed
    assert "1 photo, 0 skipped" in printed and not re.search(r"\b1 (photos|steps|files)\b", printed)
    row = r"^(bicubic|SRResNet|SRGAN) +(\d\d\.\d\d) dB +(\d\d\.\d\d) dB$"
    scores = {way: (float(learned), float(shipped)) for way, learned, shipped in re.findall(row, printed, re.MULTILINE)}
    assert scores["bicubic"][0] == scores["bicubic"][1] and abs(scores["SRResNet"][0] - scores["bicubic"][0]) < 3
    assert min(scores["SRResNet"][1], scores["SRGAN"][1]) > scores["bicubic"][1] + 1, "what the shipped weights are worth"
    for name in ("result.png", "shipped_weights.png"):
        with Image.open(tmp_path / "demo" / name) as picture:
            assert picture.width > 1000 and name in printed
            greys = picture.convert("L").resize((64, 32)).tobytes()
            assert len(set(greys)) > 20, "a picture, not an empty canvas"


def test_make_demo_hands_its_steps_on() -> None:
    "What `make demo STEPS=7` would run; the venv rule is left out of it."
    command = ["make", "--dry-run", "--old-file=.venv/installed", "demo"]
    shown = [subprocess.run([*command, *more], cwd=ROOT, text=True, capture_output=True, check=True).stdout
             for more in ([], ["STEPS=7"])]
    assert "python -m srgan_nb.demo --out demo" in " ".join(shown[0].split())
    assert "python -m srgan_nb.demo --steps 7 --out demo" in " ".join(shown[1].split())
