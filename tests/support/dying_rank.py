"""srgan_train as torchrun starts it, but the process of rank 1 is killed before its eighth update.

    torchrun ... -m tests.support.dying_rank srresnet --data ...
"""

import os
import signal
import sys
from functools import partial

from srgan_nb import cli, trainer


def die(dying: trainer.Trainer, *batch) -> None:
    if dying.state.step == 7 and dying.processes.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    trainer.Trainer = partial(trainer.Trainer, before_update=die)
    sys.exit(cli.train(sys.argv[1:]))
