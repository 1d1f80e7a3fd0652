"""Kills a small SRGAN run at random moments, during checkpoint writes too, and resumes it each time.

    python -m tests.benchmarks.kills [--kills 20] [--steps 600]

Prints how many kills struck the run alive, and whether its final state equals the undisturbed run's bit for bit.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from srgan_nb.recipes import Settings, settings_for
from srgan_nb.runs import RunFolder
from srgan_nb.trainer import Trainer


def ended_in_time(work: Callable[[], object], seconds: float) -> bool:
    "Runs `work` in a forked process and kills it after so many seconds; whether it came to its end before."
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended and status:
            raise RuntimeError("the run failed by itself")
        if ended:
            return True
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


def start_or_resume(settings: Settings) -> None:
    if RunFolder(settings.out).exists():
        Trainer.resume(settings.out, quiet=True).fit()
    else:
        Trainer(settings, quiet=True).fit()


def killed_runs(settings: Settings, kills: int, whole: float, seed: int = 0) -> int:
    """Starts the run, kills and resumes it `kills` times, then lets it end; returns how many kills struck it alive.

    `whole`: the seconds of an undisturbed run. No try gets more than its share of them, so none should come to its end.
    """
    chance = random.Random(seed)
    for struck in range(kills):
        if ended_in_time(lambda: start_or_resume(settings), chance.uniform(0.05, whole / kills)):
            return struck
    ended_in_time(lambda: start_or_resume(settings), 3600)
    return kills


if __name__ == "__main__":
    from tests.support.small_runs import SMALL_GAN, assert_same, final_state, made_up_photos

    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--steps", type=int, default=600)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    os.environ["SRGAN_NB_DATA"] = str(folder / "data")
    data = str(made_up_photos(folder / "photos"))
    first = settings_for("srresnet", "lite", data=data, out=str(folder / "srresnet"),
                         **{name: value for name, value in SMALL_GAN.items() if not name.startswith("disc")})
    Trainer(first, quiet=True).fit()
    second = {**SMALL_GAN, "steps": options.steps, "checkpoint_every": 2, "validate_every": 50, "init": first.out}
    runs = [settings_for("srgan", "lite", data=data, out=str(folder / name), **second)
            for name in ("undisturbed", "killed")]
    began = time.monotonic()
    Trainer(runs[0], quiet=True).fit()
    struck = killed_runs(runs[1], options.kills, time.monotonic() - began)
    assert_same(final_state(runs[0].out), final_state(runs[1].out))
    print(f"{struck} of {options.kills} kills struck the run alive; the final states are equal in every bit")
    sys.exit(struck < options.kills)
