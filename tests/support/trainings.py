"""Several trainings, one after the other, in the processes of one torchrun, whose start takes longer than they do.

    torchrun ... -m tests.support.trainings '[["srresnet", "--data", ...], ...]'
"""

import gc
import json
import sys

from torch import distributed

from srgan_nb import cli
from srgan_nb.devices import Processes

if __name__ == "__main__":
    Processes.leave = lambda processes: None  # the next training needs the group
    status = max(cli.train(arguments) for arguments in json.loads(sys.argv[1]))
    gc.collect()
    distributed.destroy_process_group()
    sys.exit(status)
