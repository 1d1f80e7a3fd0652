"""python -m srgan_nb COMMAND ...: every command by one name; `torchrun -m srgan_nb train ...` starts several processes."""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

COMMANDS = dict(train="cli", upscale="cli", evaluate="cli", download="cli", reduce="cli", degrade="cli", demo="demo")


def main(arguments: Sequence[str] | None = None) -> int:
    "Runs the command that the first argument names with all the others; returns its exit code."
    parser = argparse.ArgumentParser("python -m srgan_nb", description="Learn, train and use SRGAN.")
    parser.add_argument("command", choices=COMMANDS, help="what to do; COMMAND --help says more")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="those of the command")
    given = parser.parse_args(arguments)
    return getattr(import_module(f"srgan_nb.{COMMANDS[given.command]}"), given.command)(given.arguments)


if __name__ == "__main__":
    sys.exit(main())
