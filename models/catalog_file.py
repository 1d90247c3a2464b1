"""Reads one catalog file (TOML) strictly: an unknown or missing key is an error that names its place."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from models.entry import (
    Checkpoint,
    HubFile,
    ModelEntry,
    ModelFile,
    ModelKind,
    PackageFile,
    RapidOcrFile,
    Source,
    UrlFile,
)
from models.toml_table import CatalogError, Table

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True, slots=True)
class Family:
    """The properties that models of one family have in common."""

    name: str
    task: ModelKind
    required: tuple[str, ...]
    optional: tuple[str, ...]
    licence: str
    without_download: str
    vocabulary: ModelFile | None = None


@dataclass(frozen=True, slots=True)
class Override:
    """The changes that a user's file makes to a built-in model."""

    advice: str


@dataclass(frozen=True, slots=True)
class CatalogFile:
    """One file, read."""

    families: Mapping[str, Family]
    entries: tuple[ModelEntry, ...]
    overrides: Mapping[str, Override] = field(default_factory=dict)


# Names become folders and tags of BentoML's model store.
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def read_catalog_file(path: Path, families: Mapping[str, Family] | None = None) -> CatalogFile:
    """Read ``path``. ``families``: those of the built-in catalog, for a user's file, which defines none of its own.

    Raises ``CatalogError``.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CatalogError(
            f"{path} cannot be read: {error.strerror or error}. Correct MODEL_CATALOG, or leave it empty."
        ) from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise CatalogError(f"{path} is not TOML: {error}.") from error
    root = Table(document, str(path))
    own_families = families is None
    if families is None:
        tables = root.table("families")
        families = {name: _family(name, tables.table(name)) for name in tables.data}
    entries: list[ModelEntry] = []
    overrides: dict[str, Override] = {}
    for number, table in enumerate(root.tables("models") if "models" in document else [], start=1):
        _read_model(
            table, f"{path}: models entry {number}", families, entries, overrides, may_override=not own_families
        )
    root.end()
    return CatalogFile(families, tuple(entries), overrides)


def _family(name: str, table: Table) -> Family:
    task = table.text("task")
    if task not in {known.value for known in ModelKind}:
        raise table.error(f"task {task!r} is none of {', '.join(known.value for known in ModelKind)}")
    family = Family(
        name=name,
        task=ModelKind(task),
        required=table.texts("required"),
        optional=table.texts("optional"),
        licence=table.text("licence"),
        without_download=table.text("without_download"),
        vocabulary=_vocabulary(table) if "vocabulary" in table.data else None,
    )
    table.end()
    return family


def _vocabulary(table: Table) -> ModelFile:
    return ModelFile("vocab.txt", True, tuple(_source(source, "vocab.txt") for source in table.tables("vocabulary")))


def _read_model(
    table: Table,
    place: str,
    families: Mapping[str, Family],
    entries: list[ModelEntry],
    overrides: dict[str, Override],
    *,
    may_override: bool,
) -> None:
    table.place = place
    names = table.texts("names") if "names" in table.data else (table.text("name"),)
    table.place = f"{place} ({names[0] if names else 'no name'})"
    for name in names:
        if not _NAME.fullmatch(name):
            raise table.error(f"the name {name!r} may hold letters, digits, '.', '_' and '-' only")
    if may_override and set(table.data) == {"name", "advice"}:
        overrides[names[0]] = Override(advice=table.text("advice"))
        return
    family_name = table.text("family")
    if family_name not in families:
        raise table.error(f"family {family_name!r} is none of {', '.join(families)}")
    family = families[family_name]
    hub, folder = table.optional_text("hub"), table.optional_text("folder")
    files = _files(table, family)
    common = ModelEntry(
        name="",
        task=family.task,
        family=family.name,
        embedding_size=None if family.task is ModelKind.OCR else table.size("embedding_size"),
        input_size=table.optional_size("input_size"),
        files=files,
        licence=table.optional_text("licence") or family.licence,
        advice=table.text("advice"),
        without_download=family.without_download,
        folder=_folder(table, folder, files),
        checkpoint=_checkpoint(table, family) if "checkpoint" in table.data else None,
        vocabulary=family.vocabulary,
        aliases=table.texts("aliases") if "aliases" in table.data else (),
        milliseconds=table.optional_size("milliseconds"),
        download=table.optional_size("download"),
    )
    if sum([hub is not None, folder is not None, common.has_digests, common.checkpoint is not None]) > 1:
        raise table.error("`hub`, `folder`, `files` and `checkpoint` exclude each other")
    table.end()
    entries.extend(_named(common, name, hub, table) for name in names)


def _named(entry: ModelEntry, name: str, hub: str | None, table: Table) -> ModelEntry:
    if hub is not None:
        hub = hub.replace("{name}", name)
        if not _REPO.fullmatch(hub):
            raise table.error(f"hub {hub!r} is not of the form owner/name")
    return replace(entry, name=name, hub=hub, without_download=entry.without_download.replace("{name}", name))


def _checkpoint(table: Table, family: Family) -> Checkpoint:
    given = table.table("checkpoint")
    if family.vocabulary is None:
        raise given.error(f"models of the family {family.name} are not converted")
    checkpoint = Checkpoint(
        file=given.relative_path("file"),
        huggingface=given.optional_text("huggingface"),
        modelscope=given.optional_text("modelscope"),
        bytes=given.optional_size("bytes"),
    )
    repositories = [repo for repo in (checkpoint.huggingface, checkpoint.modelscope) if repo is not None]
    if not repositories or not all(_REPO.fullmatch(repo) for repo in repositories):
        raise given.error("`huggingface`, `modelscope` or both are expected, of the form owner/name")
    given.end()
    return checkpoint


def _folder(table: Table, folder: str | None, files: tuple[ModelFile, ...]) -> Path | None:
    if folder is None:
        return None
    path = Path(folder).expanduser()
    missing = [file.name for file in files if file.required and not (path / file.name).is_file()]
    if missing:
        raise table.error(f"the folder {path} lacks {', '.join(missing)}")
    return path


def _files(table: Table, family: Family) -> tuple[ModelFile, ...]:
    """Return the family's files with the sources that ``files`` gives: for all required files, or for none."""
    known = (*family.required, *family.optional)
    sources: dict[str, tuple[Source, ...]] = {}
    if "files" in table.data:
        given = table.table("files")
        for name in given.data:
            if name not in known:
                raise given.error(f"{name!r} is no file of the family {family.name} ({', '.join(known)})")
            sources[name] = tuple(_source(source, name) for source in given.tables(name))
        given.end()
        missing = [name for name in family.required if not sources.get(name)]
        if missing:
            raise table.error(f"`files` lacks {', '.join(missing)}")
    return tuple(ModelFile(name, name in family.required, sources.get(name, ())) for name in known)


def _source(table: Table, name: str) -> Source:
    kinds = [kind for kind in ("package", "hub", "url", "rapidocr") if kind in table.data]
    if len(kinds) != 1:
        raise table.error("a source has exactly one of `package`, `hub`, `url`, `rapidocr`")
    source: Source
    if kinds[0] == "rapidocr":
        source = RapidOcrFile(table.text("rapidocr"))
    elif kinds[0] == "package":
        source = PackageFile(
            table.text("package"), table.relative_path("path"), table.sha256(), table.optional_size("bytes")
        )
    elif kinds[0] == "hub":
        path = table.relative_path("path") if "path" in table.data else name
        source = HubFile(table.text("hub"), path, table.sha256(), table.optional_size("bytes"))
    else:
        url = table.text("url")
        if not url.startswith(("https://", "http://")):
            raise table.error(f"url {url!r} is neither https:// nor http://")
        source = UrlFile(url, table.sha256(), table.optional_size("bytes"))
    table.end()
    return source
