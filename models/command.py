"""``python -m models``: list, pull, convert, verify, path, rm.

Exit codes: 0 done; 1 failed, or a model is not as it should be; 2 the command line or a name in it is wrong;
130 interrupted. Results go to standard output, everything else, one sentence per event, to standard error. Settings
are the service's: docs/settings.md.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

from pydantic import ValidationError
from pydantic_settings import SettingsError

from errors import ModelUnavailable, ServiceError
from logs import on_standard_error
from models.catalog import Catalog, CatalogError, ModelEntry, ModelKind, load_catalog
from models.packages import RapidOcrListError
from models.paths import UnsafeName
from models.progress import Progress
from models.store import NotStored, tag_of
from settings import Settings
from settings.problems import what_is_wrong

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130


class WrongName(Exception):
    """A name on the command line that no model has, or several."""


def main(arguments: Sequence[str] | None = None, *, program: str = "python -m models") -> int:
    """Run one command and return its exit code. ``program``: how it was called, for its help."""
    options = parser(program).parse_args(arguments)
    try:
        # Where the service takes a model from is its news, not this command's: models.places says less.
        level = logging.WARNING if options.quiet else logging.INFO
        with on_standard_error("models", level=level), on_standard_error("models.places", level=logging.WARNING):
            settings = Settings()
            run: Command = options.run
            return run(options, load_catalog(settings.model_catalog), settings)
    except WrongName as error:
        return _say(str(error), USAGE)
    except (SettingsError, ValidationError) as error:
        return _say(f"Nothing was done: {what_is_wrong(error)}", FAILED)
    except (ServiceError, CatalogError, NotStored, RapidOcrListError, UnsafeName) as error:
        return _say(str(error), FAILED)
    except BrokenPipeError:  # the reader of our output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as error:
        return _say(f"The disk refused: {error}.", FAILED)
    except KeyboardInterrupt:
        return _say("Interrupted; a download goes on from here next time.", INTERRUPTED)


Command: TypeAlias = Callable[[argparse.Namespace, Catalog, Settings], int]


def parser(program: str) -> argparse.ArgumentParser:
    """Return the parser of ``program``'s command line."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--quiet", action="store_true", help="say nothing but results and errors")
    common.add_argument("--task", choices=[task.value for task in ModelKind], help="only models of this task")
    whole = argparse.ArgumentParser(prog=program, description="The models of immich-bento. More: docs/models.md.")
    commands = whole.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, run: Command, about: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, parents=[common], help=about, description=about)
        command.set_defaults(run=run)
        return command

    listing = add("list", _list, "What is known, and what is here.")
    listing.add_argument("--here", action="store_true", help="only models that are here")
    listing.add_argument("--json", action="store_true", help="one JSON list")
    pulling = add("pull", _pull, "Fetch models, check them, and put them into BentoML's store.")
    pulling.add_argument("names", nargs="+", metavar="NAME")
    pulling.add_argument(
        "--from", dest="carried", type=Path, metavar="DIR", help="take them from this folder, not from the network"
    )
    converting = add(
        "convert", _convert, "Make a CN-CLIP of a checkpoint: clip_cn_*.pt, or a folder as Hugging Face has it."
    )
    converting.add_argument("checkpoint", type=Path, metavar="CHECKPOINT")
    converting.add_argument(
        "--as", dest="name", required=True, metavar="NAME", help="the model's name in the catalog, such as ViT-B-16"
    )
    converting.add_argument(
        "--precision",
        choices=["fp32", "fp16"],
        default="fp32",
        help="of the weights on disk; fp16 halves them and computes in fp32",
    )
    converting.add_argument(
        "--vocabulary",
        type=Path,
        metavar="FILE",
        help="vocab.txt of cn-clip, or its wheel (that of the installed package)",
    )
    verifying = add("verify", _verify, "Read every byte of models that are here (all, or those named) and check it.")
    verifying.add_argument("names", nargs="*", metavar="NAME")
    path = add("path", _path, "Print the folder that a model is served from, or its files where they lie in several.")
    path.add_argument("name", metavar="NAME")
    removing = add("rm", _rm, "Remove models from BentoML's store and from the cache folder.")
    removing.add_argument("names", nargs="+", metavar="NAME")
    return whole


def find(catalog: Catalog, name: str, task: str | None) -> ModelEntry:
    """Return the one model called ``name``. Raises ``WrongName``."""
    found: list[ModelEntry] = []
    complaints = []
    for one in [ModelKind(task)] if task else list(ModelKind):
        try:
            found.append(catalog.find(one, name))
        except ServiceError as error:
            complaints.append(error.message)
    exact = [entry for entry in found if entry.name == name]
    if len(exact or found) > 1:
        raise WrongName(
            f"{name} is several models: {', '.join(entry.task.value for entry in found)}. Name one with --task."
        )
    if not found:
        guess = (
            complaints[0]
            if task
            else next((complaint for complaint in complaints if "Did you mean" in complaint), None)
        )
        raise WrongName(
            guess
            or f"No model is called {name!r}. `python -m models list` knows all names; MODEL_CATALOG adds your own."
        )
    return (exact or found)[0]


def _list(options: argparse.Namespace, catalog: Catalog, settings: Settings) -> int:
    from models.listing import as_json, as_table, rows

    chosen = rows(catalog.of_task(ModelKind(options.task)) if options.task else catalog.entries, settings)
    if options.here:
        chosen = [row for row in chosen if row.places]
    print(as_json(chosen) if options.json else as_table(chosen))  # noqa: T201
    return OK


def _pull(options: argparse.Namespace, catalog: Catalog, settings: Settings) -> int:
    from models.pull import pull
    from models.succession import succession

    code = OK
    listener = _show if sys.stderr.isatty() and not options.quiet else None
    for entry in [find(catalog, name, options.task) for name in options.names]:
        try:
            pulled = pull(entry, settings, carried=options.carried, listener=listener)
        except (ServiceError, NotStored) as error:
            code = _say(str(error), FAILED)
            continue
        what = f"{pulled.how} as {pulled.tag}" if pulled.tag else f"{pulled.how}, nothing to fetch"
        _tell(options, f"{entry.name}: {what} ({pulled.folder})")
        _warn_of_shadows(entry, pulled.folder, settings)
        if entry.task is ModelKind.CLIP and (told := succession(entry, catalog, settings)):
            _tell(options, f"CLIP_MODEL={entry.name} will mean: {told}")
    return code


def _convert(options: argparse.Namespace, catalog: Catalog, settings: Settings) -> int:
    from models.convert import ConversionRefused, convert_and_store, installed_vocabulary

    entry = find(catalog, options.name, options.task or ModelKind.CLIP.value)
    try:
        vocabulary = options.vocabulary or installed_vocabulary()
        converted = convert_and_store(options.checkpoint, entry, vocabulary=vocabulary, precision=options.precision)
    except ConversionRefused as error:
        return _say(str(error), FAILED)
    cosines = f"pictures {converted.image_cosine:.7f}, texts {converted.text_cosine:.7f}"
    least = f"least cosine to a second forward pass: {cosines}"
    _tell(options, f"{entry.name}: stored as {tag_of(converted.folder)} ({converted.folder}); {least}")
    _warn_of_shadows(entry, converted.folder, settings)
    return OK


def _verify(options: argparse.Namespace, catalog: Catalog, settings: Settings) -> int:
    from models.places import places, verify

    code = OK
    named = [find(catalog, name, options.task) for name in options.names]
    chosen = named or (catalog.of_task(ModelKind(options.task)) if options.task else catalog.entries)
    for entry in chosen:
        found = places(entry, settings)
        if named and not found:
            code = _say(f"{entry.name} is not here. `python -m models pull {entry.name}` fetches it.", FAILED)
        for place in found:
            verdict = verify(entry, place)
            line = f"{entry.name} ({entry.task.value}): {verdict.state}, {verdict.detail} ({place.folder})"
            if verdict.good:
                _tell(options, line)
            else:
                code = _say(line, FAILED)
    return code


def _path(options: argparse.Namespace, catalog: Catalog, settings: Settings) -> int:
    from models.resolve import resolve

    entry = find(catalog, options.name, options.task)
    try:
        files = resolve(entry, settings.model_copy(update={"offline": True}))
    except ModelUnavailable:
        if settings.offline:
            raise
        return _say(f"{entry.name} is not here whole. `python -m models pull {entry.name}` fetches it.", FAILED)
    folders = {Path(str(path).removesuffix(name)) for name, path in files.items() if str(path).endswith("/" + name)}
    layout = len(folders) == 1 and all(str(path).endswith("/" + name) for name, path in files.items())
    print("\n".join(map(str, folders if layout else files.values())))  # noqa: T201
    return OK


def _rm(options: argparse.Namespace, catalog: Catalog, settings: Settings) -> int:
    from models.pull import remove

    code = OK
    for entry in [find(catalog, name, options.task) for name in options.names]:
        removed = remove(entry, settings)
        for folder in removed.folders:
            _tell(options, f"{entry.name}: removed {folder}")
        for link, target in removed.links:
            _tell(options, f"{entry.name}: removed the link {link}; the folder that it led to stays as it is: {target}")
        gone = bool(removed.folders or removed.links)
        for folder in removed.kept:
            logging.getLogger(__name__).warning("%s: %s is not ours to remove.", entry.name, folder)
        if not gone and not removed.kept:
            _say(f"{entry.name} is neither in BentoML's store nor in the cache folder.", FAILED)
        code = code if gone else FAILED
    return code


def _warn_of_shadows(entry: ModelEntry, folder: Path, settings: Settings) -> None:
    """Warn if the service would take the model from somewhere else first."""
    from models.places import places

    first = next((place for place in places(entry, settings) if place.whole), None)
    if first is not None and first.folder != folder and first.kind in ("folder", "cache"):
        logging.getLogger(__name__).warning(
            "%s: the service takes it from %s, which comes first.", entry.name, first.folder
        )


def _show(progress: Progress) -> None:
    """Write how far a model is over the line that says how far it was."""
    print(f"\r\x1b[2K{progress}", end="\r", file=sys.stderr, flush=True)  # noqa: T201


def _tell(options: argparse.Namespace, line: str) -> None:
    if not options.quiet:
        print(line, flush=True)  # noqa: T201


def _say(line: str, code: int) -> int:
    print(line, file=sys.stderr, flush=True)  # noqa: T201
    return code
