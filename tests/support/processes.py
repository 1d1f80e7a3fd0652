"""Processes that start in a moment: children of a server that has imported what takes seconds, and has done nothing else."""

import multiprocessing
import os
import runpy
import sys
from collections.abc import Mapping
from pathlib import Path
from subprocess import CompletedProcess
from tempfile import TemporaryDirectory

context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(["pytest", "srgan_nb.trainer", "srgan_nb.upscale_files", "srgan_nb.downloads", "nbdev.test",
                                "matplotlib.pyplot", "torch._dynamo"])  # the last one is imported by an optimizer


def run_module(words: list[str], folder: Path, environment: Mapping[str, str] = os.environ) -> CompletedProcess:
    "`python -m` with these words, in `folder`; what it printed, as text."
    with TemporaryDirectory() as logs:
        streams = [os.path.join(logs, name) for name in ("stdout", "stderr")]
        process = context.Process(target=_module, args=(words, folder, dict(environment), streams))
        process.start()
        try:
            process.join()
        finally:
            process.kill()
        return CompletedProcess(words, process.exitcode, *(Path(path).read_text(encoding="utf-8") for path in streams))


def _module(words: list[str], folder: Path, environment: dict[str, str], streams: list[str]) -> None:
    multiprocessing.set_start_method(None, force=True)
    os.environ.clear()
    os.environ.update(environment)
    for descriptor, path in enumerate(streams, 1):
        with open(path, "wb") as file:
            os.dup2(file.fileno(), descriptor)
    os.chdir(folder)
    sys.argv[1:] = words[1:]
    runpy.run_module(words[0], run_name="__main__", alter_sys=True)
