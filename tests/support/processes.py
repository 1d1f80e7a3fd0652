"""Processes that start in a moment: children of a server that has imported what takes seconds, and has done nothing else."""

import multiprocessing

context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(["pytest", "srgan_nb.trainer", "srgan_nb.upscale_files", "srgan_nb.downloads", "nbdev.test",
                                "matplotlib.pyplot", "torch._dynamo"])  # the last one is imported by an optimizer
