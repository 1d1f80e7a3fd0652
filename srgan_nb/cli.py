"""The command line: srgan_train, srgan_evaluate, srgan_upscale, srgan_download. Parses, calls the package, reports.

Exit codes: 0 done; 1 the work failed, with one clear line on stderr; 2 wrong usage; 128 + N stopped by signal N.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import Field, fields, replace
from functools import wraps
from io import TextIOWrapper
from os.path import expanduser
from pathlib import Path
from typing import Any

from srgan_nb.errors import UserError

__all__ = ["train", "evaluate", "upscale", "download", "reduce", "degrade"]

SCALES = (2, 3, 4, 8)  # those of `generator.UPSAMPLE_FACTORS`, whose import would take seconds


def meant(argument: str) -> str:
    "The argument with the home folder instead of a tilde, also behind --flag=, where no shell puts it."
    flag, equals, value = argument.partition("=") if argument.startswith("--") else ("", "", argument)
    if not value and (equals or not flag):
        raise UserError(f"{flag or 'an argument'} is empty: is a variable of the shell not set?")
    return flag + equals + expanduser(value)


def exits_cleanly(command: Callable[[Sequence[str] | None], int | None]) -> Callable[..., int]:
    "Turns the errors that a user can mend into one line on stderr, signed srgan_NAME, and the exit code 1."

    @wraps(command)
    def wrapped(arguments: Sequence[str] | None = None) -> int:
        if isinstance(sys.stdout, TextIOWrapper):  # whose code page may lack a file's name
            sys.stdout.reconfigure(errors="backslashreplace")
        sys.stderr = sys.stderr or open(os.devnull, "w")  # a service, or Windows without a console
        try:
            return command([meant(argument) for argument in (sys.argv[1:] if arguments is None else arguments)]) or 0
        except KeyboardInterrupt:
            said, code = "interrupted", 130
        except UserError as error:
            said, code = str(error), 1
        except OSError as error:
            said, code = f"{f'{error.filename}: ' if error.filename else ''}{error.strerror or error}", 1
        except Exception as error:
            from srgan_nb.tiles import is_out_of_memory
            if not is_out_of_memory(error):
                raise
            what = str(error).strip().split("\n")[0]
            said, code = f"out of memory: choose a smaller batch or tile ({what})", 1
        print(f"srgan_{command.__name__}: {said}", file=sys.stderr)
        return code

    return wrapped


def usual_value(one: Field) -> str:
    "The end of a flag's help: the paper's value, or ours where it names none; nothing for what only the user knows."
    from srgan_nb.settings import PRESETS, MachineSettings
    def said(stage, preset):
        value = PRESETS[stage, preset].get(one.name, one.default)
        if isinstance(value, bool):
            return "yes" if value else "no"
        return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)

    first, second, lite = said("srresnet", "paper"), said("srgan", "paper"), said("srresnet", "lite")
    if not first:
        return ""
    if {"ours", "path", "handed_on"} & set(one.metadata["marks"]) or one in fields(MachineSettings):
        return f" (default: {first})" if first == lite else f" (default: {first}, in lite {lite})"
    return f" (paper: {first})" if first == second else f" (paper: {first}, for srgan {second})"


def value_of(kind: type) -> Callable[[str], object]:
    "What a flag's text becomes: a value of that type; None for the word none where the setting may be None."
    def read(text: str) -> object:
        return None if text == "none" else kind(text)

    read.__name__ = kind.__name__  # argparse: invalid int value
    return read


def add_settings(parser: argparse.ArgumentParser) -> None:
    "A flag for every field of `Settings`; a flag that is not given leaves no trace, so that the preset decides."
    from srgan_nb.settings import Settings, flag, kind_of
    for one in fields(Settings):
        if one.name == "stage":
            continue
        kind, may_be_none = kind_of(one)
        explanation = (one.metadata["help"] + usual_value(one)).replace("%", "%%")
        options = {"help": explanation, "default": argparse.SUPPRESS}
        if kind is bool:
            parser.add_argument(flag(one.name), action=argparse.BooleanOptionalAction, **options)
        else:
            choices = one.metadata["choices"]
            metavar = f"{{{','.join(map(str, choices))}}}" if choices else kind.__name__.upper()
            parser.add_argument(flag(one.name), type=value_of(kind) if may_be_none else kind, metavar=metavar,
                                choices=(*choices, None) if choices and may_be_none else choices or None, **options)


def new_settings(parser: argparse.ArgumentParser, stage: str, file: str | None, given: dict[str, Any]) -> Any:
    "The `Settings` of a new run: those in a file, or a preset's with what `--init` hands on, changed by the given flags."
    from srgan_nb.runs import inherited
    from srgan_nb.settings import read_settings, settings_for
    if file is not None:
        settings = read_settings(file)
        if settings.stage != stage:
            raise UserError(f"{file} is of the other stage, not {stage}")
        return replace(settings, **given)
    for needed in ("out",) if given.get("init") else ("data", "out"):
        if given.get(needed) is None:
            parser.error(f"--{needed} is needed")
    if stage == "srgan" and given.get("init") is None:
        parser.error("the srgan stage starts from a trained SRResNet: --init RUN is needed")
    given = {**(inherited(given["init"]) if given.get("init") else {}), **given}
    return settings_for(stage, given.pop("preset", "paper"), **given)


@exits_cleanly
def train(arguments: Sequence[str] | None = None) -> int:
    "srgan_train: one stage of training, new or continued."
    parser = argparse.ArgumentParser("srgan_train", description="Trains SRResNet, then SRGAN from it.")
    parser.add_argument("stage", choices=("srresnet", "srgan"), help="the first stage or the second")
    parser.add_argument("--resume", metavar="RUN", help="continue the run in this folder; other flags change it")
    parser.add_argument("--settings", metavar="FILE", help="a run's settings.json, not a preset; other flags change it")
    parser.add_argument("--estimate", action="store_true", help="time ten updates, say how long the run will take, and end")
    add_settings(parser)
    given = vars(parser.parse_args(arguments))
    stage, resume, file, estimate = (given.pop(name) for name in ("stage", "resume", "settings", "estimate"))
    if resume is not None and (estimate or file is not None or not {"out", "init", "preset"}.isdisjoint(given)):
        parser.error("--resume goes on in its own folder, from its own state: leave out --out, --init, --preset, "
                     "--settings and --estimate")
    given |= {"out": "estimate"} if estimate else {}  # nothing is written there
    if file is not None and ("preset" in given or "out" not in given):
        parser.error("--settings begins a new run: --out is needed, and no --preset")

    from srgan_nb.runs import RunFolder
    from srgan_nb.trainer import Interrupted, Trainer, seconds_per_step
    if resume is None:
        settings = new_settings(parser, stage, file, given)
    elif RunFolder(resume).settings().stage != stage:
        raise UserError(f"{resume} is a run of the other stage, not {stage}")
    if estimate:
        try:
            seconds = seconds_per_step(settings)
        except Interrupted as stop:
            print("srgan_train: interrupted", file=sys.stderr)
            return 128 + stop.signal
        hours = settings.steps * seconds / 3600
        print(f"{seconds:.2g} s an update here: {settings.steps:,} of them take {hours:.2g} hours, validations aside")
        return 0
    trainer = Trainer(settings) if resume is None else Trainer.resume(resume, **given)
    try:
        trainer.fit()
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        return 128 + stop.signal
    if trainer.processes.first:
        run = trainer.run.folder
        print(f"done: {run / 'generator.safetensors'}, the newest weights; best.safetensors beside it, those with the best "
              f"PSNR; pictures in {run / 'samples'}\nhow it went: python -c "
              f"\"import srgan_nb; print(srgan_nb.diagnose({str(run)!r}))\"")
    return 0


def evaluate_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("srgan_evaluate", description="Scores models by the paper's protocol.")
    parser.add_argument("datasets", nargs="*", metavar="SET", help="Set5, Set14, BSD100, or a folder of pictures")
    parser.add_argument("--model", nargs="+", dest="models", metavar="MODEL",
                        help="bicubic, a shipped name, a .safetensors file or a run's folder; several may be named "
                        "(default: srgan)")
    parser.add_argument("--pairs", nargs=2, action="append", default=[], metavar=("SR", "HR"),
                        help="a folder of pictures that any method has made, and the set of their HR; several times")
    parser.add_argument("--scale", type=int, choices=SCALES, help="of bicubic and of --pairs; networks have their own")
    parser.add_argument("--intervals", action="store_true",
                        help="add each model's difference from the first of its set, with a 95 %% interval")
    parser.add_argument("--lpips", choices=("squeeze", "alex", "vgg"), help="add LPIPS by this network")
    parser.add_argument("--texture", action="store_true", help="measure fine power, weave and gradient distance as well")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, ...")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N pictures of each set")
    parser.add_argument("--pictures", metavar="FOLDER", help="write comparison pictures with zoomed crops there")
    parser.add_argument("--save", metavar="FILE", help="write the table there as well: .md, .csv or .json")
    return parser


@exits_cleanly
def evaluate(arguments: Sequence[str] | None = None) -> None:
    "srgan_evaluate: one or several models on one or several sets, as a table."
    given = (parser := evaluate_parser()).parse_args(arguments)
    if not given.datasets and (given.models or not given.pairs):
        parser.error("name a SET, before --model, or only --pairs SR HR")

    from srgan_nb.evaluation import evaluate, find_dataset, find_model, find_pairs, made_elsewhere
    from srgan_nb.reports import check_report, intervals_to_markdown, save_comparisons, save_report, to_markdown
    if given.save:  # what can't be is told before work starts
        check_report(given.save)
    names = (given.models or ["srgan"]) if given.datasets else []
    sets = len(names) * given.datasets + [hr for _, hr in given.pairs]
    if given.intervals and len({find_dataset(dataset).resolve() for dataset in sets}) == len(sets):
        parser.error("--intervals compares on one set: name several models, or --pairs beside one")
    models = [find_model(model, given.scale, given.device) for model in names]
    asked = [(dataset, model) for model in models for dataset in given.datasets]
    asked += [(hr, made_elsewhere(sr, given.scale or 4)) for sr, hr in given.pairs]
    for dataset, model in asked:
        pairs, _ = find_pairs(find_dataset(dataset), model.scale)
        if given.pictures and Path(given.pictures).resolve() in {hr.parent.resolve() for _, hr, _ in pairs}:
            raise UserError(f"--pictures {given.pictures}: the comparisons would be taken for pictures of {dataset}, "
                            "whose folder it is: choose a different one")
    each = save_comparisons(given.pictures) if given.pictures else None
    results = [evaluate(dataset, model, lpips_net=given.lpips, limit=given.limit, each=each, texture=given.texture)
               for dataset, model in asked]
    try:  # what was paid for is kept in one place if the other fails
        if given.save:
            save_report(results, given.save)
    finally:
        print(to_markdown(results))
    if given.intervals:
        print(intervals_to_markdown(results))


def upscale_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("srgan_upscale", description="Enlarges a picture, or every picture of a folder.")
    parser.add_argument("sources", nargs="+", metavar="IN", help="a picture, several, or a folder; - is standard input")
    parser.add_argument("target", metavar="OUT", help="the file or folder to write; - is standard output")
    parser.add_argument("--model", default="srgan", help="bicubic, a shipped name (srgan, srresnet, srgan-base, srresnet-base), "
                                                        "a .safetensors file or a run's folder")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--scale", type=float, metavar="X", help="how many times as wide and high; else the network's own")
    size.add_argument("--width", type=int, metavar="PIXELS", help="of the result, its height follows")
    size.add_argument("--height", type=int, metavar="PIXELS", help="of the result, its width follows")
    size.add_argument("--megapixels", type=float, metavar="X", help="of the result")
    parser.add_argument("--max-memory", metavar="SIZE", help="what enlarging may take, such as 1GB")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, ...")
    parser.add_argument("--half", action="store_true", help="float16, on CUDA only")
    parser.add_argument("--compile", action="store_true", help="torch.compile the network: worth it for many pictures")
    parser.add_argument("--format", dest="file_format", help="png, jpg, ...: of all in a folder, or of OUT -")
    parser.add_argument("--quality", type=int, default=95, help="of JPEG and WebP, 1 to 100")
    parser.add_argument("--force", action="store_true", help="overwrite what is there")
    return parser


@exits_cleanly
def upscale(arguments: Sequence[str] | None = None) -> int:
    "srgan_upscale: a picture, or a folder of them."
    given = (parser := upscale_parser()).parse_args(arguments)

    from srgan_nb.devices import Processes
    from srgan_nb.upscale_files import TargetSize, piped, upscale_file, upscale_files, upscale_folder
    from srgan_nb.upscaling import Upscaler
    first, processes = given.sources[0], Processes.here()
    one = len(given.sources) == 1 and ("*" not in first or Path(first).exists())  # Windows' shells leave * to us
    if given.target == "-" and not (one and given.file_format):
        parser.error("OUT is -: one picture goes there, in the format that --format names")
    if given.file_format and given.target != "-" and (not one or first == "-" or Path(first).is_file()):
        parser.error("--format is for a folder IN, or OUT -: else the ending of OUT, or each picture's own, is the format")
    if not one and ("-" in given.sources or any(Path(source).is_dir() for source in given.sources)):
        parser.error("several IN are pictures: a folder, or -, is named alone")
    own_scale = int(given.scale) if given.model == "bicubic" and given.scale in SCALES else None
    upscaler = Upscaler(given.model, given.max_memory, device=given.device, half=given.half, compile=given.compile,
                        progress=one and not Path(first).is_dir() and given.target != "-", scale=own_scale)
    how = {"quality": given.quality, "size": TargetSize(given.scale, given.width, given.height, given.megapixels)}
    if not one:
        report = upscale_files(given.sources, given.target, upscaler, given.force, **how)
    elif Path(first).is_dir():
        report = upscale_folder(first, given.target, upscaler, given.force, file_format=given.file_format,
                                processes=processes, **how)
    elif "-" in (first, given.target):
        piped(first, given.target, upscaler, given.file_format, given.force, **how)
        return 0
    else:
        print(upscale_file(first, given.target, upscaler, given.force, **how))
        return 0
    processes.leave()
    if processes.reports:
        print(report, file=sys.stderr if report.failed else sys.stdout)
    return 1 if report.failed else 0


@exits_cleanly
def download(arguments: Sequence[str] | None = None) -> None:
    "srgan_download: DIV2K and the benchmark sets."
    from srgan_nb.downloads import PHOTO_SETS, TOGETHER, download
    sets = [*TOGETHER, *PHOTO_SETS]
    parser = argparse.ArgumentParser("srgan_download", description="Fetches, checks and unpacks photograph sets.")
    parser.add_argument("names", nargs="+", choices=sets, metavar="NAME", help=f"any of {', '.join(sets)}")
    parser.add_argument("--folder", help="where to put them (default: $SRGAN_NB_DATA, or the cache of this system)")
    parser.add_argument("--from", dest="archive", metavar="ARCHIVE", help="an archive that was fetched by hand")
    given = parser.parse_args(arguments)
    download(given.names, given.folder, given.archive)


@exits_cleanly
def reduce(arguments: Sequence[str] | None = None) -> None:
    "python -m srgan_nb reduce: smaller copies of photographs, sharper ones where they were soft."
    parser = argparse.ArgumentParser("python -m srgan_nb reduce", description="Copies photographs, bicubically reduced.")
    parser.add_argument("photos", metavar="PHOTOS", help="a folder of photographs")
    parser.add_argument("out", metavar="OUT", help="a new folder, for PNG files of the same names")
    parser.add_argument("factor", type=float, metavar="FACTOR", help="2 halves height and width; 1.25 and the like will do")
    parser.add_argument("--leave-out", type=int, default=0, metavar="N", help="the last N by name get no copy")
    given = parser.parse_args(arguments)

    from srgan_nb.packs import reduce_photos
    print(reduce_photos(given.photos, given.out, given.factor, given.leave_out))


@exits_cleanly
def degrade(arguments: Sequence[str] | None = None) -> None:
    "python -m srgan_nb degrade: pairs to train on for blurred, noisy and compressed pictures."
    parser = argparse.ArgumentParser("python -m srgan_nb degrade", description="Copies photographs (HR) and degrades them (LR).")
    parser.add_argument("photos", metavar="PHOTOS", help="a folder of photographs")
    parser.add_argument("out", metavar="OUT", help="a new folder, for HR and LR; give it to srgan_train --data")
    parser.add_argument("--scale", type=int, default=4, choices=SCALES, help="HR side / LR side")
    for name, kind, usual, what in (("blur", float, (0.2, 2.0), "deviations of the blur, in HR pixels"),
                                    ("noise", float, (0.0, 10.0), "deviations of the noise, of 255"),
                                    ("jpeg", int, (40, 95), "qualities of the JPEG file")):
        parser.add_argument(f"--{name}", type=kind, nargs=2, default=usual, metavar=("LEAST", "MOST"), help=what)
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn")
    given = parser.parse_args(arguments)

    from srgan_nb.packs import degrade_photos
    print(degrade_photos(**vars(given)))
