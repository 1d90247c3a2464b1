"""The catalog knows every model that Immich knows, and says clearly what is wrong with a file of the user's."""

from __future__ import annotations

import ast
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from errors import ErrorCode, ServiceError
from models.catalog import Catalog, CatalogError, ModelKind, load_catalog, normalise_clip_name
from models.packages import RapidOcrListError, package_folder, rapidocr_sources

CATALOG = load_catalog()

# shared/IMMICH-PROTOCOL.md, "Names and sizes", written out.
IMMICH_NAMES = {
    512: """RN101__openai RN101__yfcc15m ViT-B-16__laion400m_e31 ViT-B-16__laion400m_e32 ViT-B-16__openai
        ViT-B-32__laion2b-s34b-b79k
        ViT-B-32__laion2b_e16 ViT-B-32__laion400m_e31 ViT-B-32__laion400m_e32 ViT-B-32__openai
        XLM-Roberta-Base-ViT-B-32__laion5b_s13b_b90k XLM-Roberta-Large-Vit-B-32""",
    640: """RN50x4__openai ViT-B-16-plus-240__laion400m_e31 ViT-B-16-plus-240__laion400m_e32
        XLM-Roberta-Large-Vit-B-16Plus""",
    768: """LABSE-Vit-L-14 RN50x16__openai ViT-B-16-SigLIP__webli ViT-B-16-SigLIP-256__webli ViT-B-16-SigLIP-384__webli
        ViT-B-16-SigLIP-512__webli ViT-B-16-SigLIP-i18n-256__webli ViT-L-14-336__openai ViT-L-14-quickgelu__dfn2b
        ViT-L-14__laion2b-s32b-b82k ViT-L-14__laion400m_e31 ViT-L-14__laion400m_e32 ViT-L-14__openai
        XLM-Roberta-Large-Vit-L-14
        nllb-clip-base-siglip__mrl nllb-clip-base-siglip__v1 ViT-B-16-SigLIP2__webli ViT-B-32-SigLIP2-256__webli""",
    1024: """RN50__cc12m RN50__openai RN50__yfcc15m RN50x64__openai ViT-H-14-378-quickgelu__dfn5b
        ViT-H-14-quickgelu__dfn5b
        ViT-H-14__laion2b-s32b-b79k ViT-L-16-SigLIP-256__webli ViT-L-16-SigLIP-384__webli ViT-g-14__laion2b-s12b-b42k
        XLM-Roberta-Large-ViT-H-14__frozen_laion5b_s13b_b90k ViT-L-16-SigLIP2-256__webli ViT-L-16-SigLIP2-384__webli
        ViT-L-16-SigLIP2-512__webli""",
    1152: """nllb-clip-large-siglip__mrl nllb-clip-large-siglip__v1 ViT-SO400M-14-SigLIP-384__webli
        ViT-SO400M-14-SigLIP2__webli
        ViT-SO400M-14-SigLIP2-378__webli ViT-SO400M-16-SigLIP2-256__webli ViT-SO400M-16-SigLIP2-384__webli
        ViT-SO400M-16-SigLIP2-512__webli""",
    1536: "ViT-gopt-16-SigLIP2-256__webli ViT-gopt-16-SigLIP2-384__webli",
}
CN_CLIP = {
    "RN50": (1024, 224),
    "ViT-B-16": (512, 224),
    "ViT-L-14": (768, 224),
    "ViT-L-14-336": (768, 336),
    "ViT-H-14": (1024, 224),
}
QA_CLIP = {"QA-CLIP-RN50": (1024, 224), "QA-CLIP-ViT-B-16": (512, 224), "QA-CLIP-ViT-L-14": (768, 224)}
OCR = """PP-OCRv6_small PP-OCRv6_tiny PP-OCRv6_medium PP-OCRv5_mobile PP-OCRv5_server PP-OCRv4_mobile PP-OCRv4_server
    EN__PP-OCRv5_mobile EL__PP-OCRv5_mobile KOREAN__PP-OCRv5_mobile LATIN__PP-OCRv5_mobile ESLAV__PP-OCRv5_mobile
    TH__PP-OCRv5_mobile"""


def test_every_clip_name_of_immich_is_known_with_its_size_and_no_other() -> None:
    expected = {name: size for size, names in IMMICH_NAMES.items() for name in names.split()}
    found = {
        entry.name: entry.embedding_size for entry in CATALOG.of_task(ModelKind.CLIP) if entry.family == "immich-clip"
    }
    assert found == expected | {"fg-clip2-base": 768}  # in Immich's layout, but not of Immich's list


def test_immich_models_come_from_the_repository_of_their_name() -> None:
    entries = [entry for entry in CATALOG.entries if entry.family == "immich-clip" and entry.name != "fg-clip2-base"]
    assert {entry.hub for entry in entries} == {f"immich-app/{entry.name}" for entry in entries}


def test_the_cn_clip_models_have_their_sizes_and_the_official_checkpoints() -> None:
    entries = {entry.name: entry for entry in CATALOG.entries if entry.family == "cn-clip"}
    sizes = {name: (entry.embedding_size, entry.input_size) for name, entry in entries.items()}
    assert sizes == CN_CLIP | QA_CLIP | {"cn-clip-tiny": (512, 64)}
    assert all("MIT" in entry.licence for name, entry in entries.items() if name not in QA_CLIP)
    assert all("Apache-2.0" in entries[name].licence and "Not verified" in entries[name].advice for name in QA_CLIP)
    for name, (repo, file) in _cn_clips_own_downloads().items():
        checkpoint = entries[name].checkpoint
        assert checkpoint is not None
        assert checkpoint.file == file
        assert (checkpoint.huggingface, checkpoint.modelscope) == (f"OFA-Sys/{repo}", f"AI-ModelScope/{repo}")


def _cn_clips_own_downloads() -> dict[str, tuple[str, str]]:
    """Return repository and file by name, out of cn_clip's code, which is not imported: it wants torchvision."""
    folder = package_folder("cn_clip")
    assert folder is not None
    tree = ast.parse((folder / "clip/utils.py").read_text(encoding="utf-8"))
    assigned = {node.targets[0].id: node.value for node in tree.body if isinstance(node, ast.Assign)}  # type: ignore[attr-defined]
    models: dict[str, tuple[str, str]] = ast.literal_eval(assigned["_MODELS"])
    assert set(models) == set(CN_CLIP)
    return models


def test_the_five_face_packs_say_that_they_are_for_research_only() -> None:
    entries = CATALOG.of_task(ModelKind.FACES)
    assert [entry.name for entry in entries] == ["buffalo_l", "buffalo_m", "buffalo_s", "buffalo_sc", "antelopev2"]
    assert {entry.embedding_size for entry in entries} == {512}
    assert all("non-commercial" in entry.licence and entry.has_digests for entry in entries)


def test_every_ocr_name_is_known_and_listed_by_the_installed_rapidocr() -> None:
    entries = CATALOG.of_task(ModelKind.OCR)
    assert {entry.name for entry in entries} == set(OCR.split())
    for source in chain.from_iterable(file.sources for entry in entries for file in entry.files):
        package, url = rapidocr_sources(source.key)  # type: ignore[union-attr]
        assert url.url.endswith(".onnx")
        assert package.sha256 == url.sha256


def test_a_key_that_rapidocr_does_not_list_is_an_error_that_names_it() -> None:
    with pytest.raises(RapidOcrListError, match="no model nothing_det"):
        rapidocr_sources("nothing_det")


@pytest.mark.parametrize(("alias", "name"), [("ocr", "PP-OCRv6_small"), ("CH__PP-OCRv5_mobile", "PP-OCRv5_mobile")])
def test_an_alias_finds_the_model_itself(alias: str, name: str) -> None:
    assert CATALOG.find(ModelKind.OCR, alias).name == name


@pytest.mark.parametrize(
    "raw",
    ["ViT-B-32__openai", "ViT-B-32::openai", "immich-app/ViT-B-32::openai", "https://hub/immich-app/ViT-B-32__openai"],
)
def test_a_clip_name_is_understood_in_every_spelling_that_immich_accepts(raw: str) -> None:
    assert CATALOG.find(ModelKind.CLIP, raw).name == "ViT-B-32__openai"


@given(st.text())
def test_a_normalised_name_has_no_slash_or_colon_and_stays_as_it_is(raw: str) -> None:
    name = normalise_clip_name(raw)
    assert not set(name) & {"/", ":"}
    assert normalise_clip_name(name) == name


@pytest.mark.parametrize(
    ("task", "name", "hint"),
    [
        (ModelKind.FACES, "bufalo_L", "buffalo_l"),
        (ModelKind.OCR, "pp-ocrv5_mobile", "PP-OCRv5_mobile"),  # case counts, and the message says how it is written
        (ModelKind.OCR, "???", "PP-OCRv6_small"),
        (ModelKind.CLIP, "ViT-B-32", "ViT-B-32__"),
        (ModelKind.CLIP, "buffalo_l", "Known are 68"),
        (ModelKind.CLIP, "", "`python -m models list` shows all names"),
    ],
)
def test_an_unknown_name_is_refused_with_the_closest_names(task: ModelKind, name: str, hint: str) -> None:
    with pytest.raises(ServiceError) as caught:
        CATALOG.find(task, name)
    assert caught.value.code is ErrorCode.UNKNOWN_MODEL
    assert hint in caught.value.message


@given(st.text(max_size=300), st.sampled_from(ModelKind))
def test_any_text_is_either_found_or_refused_in_a_message_of_bearable_length(name: str, task: ModelKind) -> None:
    message = ""
    try:
        assert CATALOG.find(task, name).task is task
    except ServiceError as error:
        message = error.message
    assert len(message) < 1200


# --- a file of the user's --------------------------------------------------------------------------------------------

OWN = '[[models]]\nname = "own"\nfamily = "insightface"\nembedding_size = 512\nadvice = "Mine."\n'
CLIP = OWN.replace("insightface", "cn-clip")
SHA = "a" * 64


def _load(tmp_path: Path, text: str) -> Catalog:
    path = tmp_path / "own.toml"
    path.write_text(text)
    return load_catalog(path)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("= 1", "is not TOML"),
        ("colour = 1", "unknown key colour"),
        ("[families.x]\ntask = 'ocr'", "unknown key families"),
        ("models = 3", "a table is expected"),
        ("[[models]]\nfamily = 'pp-ocr'", r"models entry 1: `name` is missing"),
        (OWN + "colour = 1", r"models entry 1 \(own\): unknown key colour"),
        (OWN.replace("insightface", "mine"), r"\(own\): family 'mine' is none of cn-clip"),
        (OWN.replace("512", "-1"), r"\(own\): `embedding_size` must be a whole number above 0"),
        (OWN.replace("512", "true"), "whole number"),
        (OWN.replace('"Mine."', '""'), "`advice` must be a text"),
        (OWN.replace('"own"', '"../own"'), "may hold letters, digits"),
        (OWN.replace("embedding_size = 512\n", ""), "`embedding_size` is missing"),
        (OWN + 'hub = "nonsense"', "not of the form owner/name"),
        (
            OWN + 'folder = "/nowhere"',
            r"\(own\): the folder /nowhere lacks detection/model.onnx, recognition/model.onnx",
        ),
        (OWN + 'folder = "/nowhere"\nhub = "a/b"', "lacks detection"),
        (
            OWN + '[models.files]\n"detection/model.onnx" = { rapidocr = "x" }',
            r"\(own\): `files` lacks recognition/model.onnx",
        ),
        (OWN + '[models.files]\n"x.onnx" = { rapidocr = "x" }', "'x.onnx' is no file of the family insightface"),
        (
            OWN + '[models.files]\n"detection/model.onnx" = { url = "https://x/y" }',
            "files: detection/model.onnx: `sha256` is missing",
        ),
        (OWN + f'[models.files]\n"detection/model.onnx" = {{ url = "ftp://x/y", sha256 = "{SHA}" }}', "neither https"),
        (OWN + '[models.files]\n"detection/model.onnx" = { url = "https://x/y", sha256 = "abc" }', "64 digits"),
        (OWN + '[models.files]\n"detection/model.onnx" = { url = "https://x/y", hub = "a/b" }', "exactly one of"),
        (
            OWN + f'[models.files]\n"detection/model.onnx" = {{ package = "os", path = "../x", sha256 = "{SHA}" }}',
            "stay below",
        ),
        (CLIP + "checkpoint = { file = 'a.pt' }", "`huggingface`, `modelscope` or both are expected"),
        (CLIP + "checkpoint = { file = 'a.pt', huggingface = 'a' }", "of the form owner/name"),
        (CLIP + "checkpoint = { file = '../a.pt', huggingface = 'a/b' }", "does not stay below its folder"),
        (CLIP + "checkpoint = { file = 'a.pt', modelscope = 'a/b', bytes = -1 }", "a whole number above 0"),
        (CLIP + "hub = 'a/b'\ncheckpoint = { file = 'a.pt', modelscope = 'a/b' }", "exclude each other"),
        (OWN + "checkpoint = { file = 'a.pt', modelscope = 'a/b' }", "of the family insightface are not converted"),
        (OWN.replace('"own"', '"buffalo_l"'), "Two facial-recognition models are called buffalo_l"),
        (OWN + OWN, "Two facial-recognition models are called own"),
        ("[[models]]\nname = 'buffalo_xl'\nadvice = 'Good.'", "buffalo_xl: only a built-in model"),
    ],
)
def test_a_wrong_file_is_refused_with_its_path_the_entry_and_the_reason(
    tmp_path: Path, text: str, complaint: str
) -> None:
    with pytest.raises(CatalogError, match=complaint):
        _load(tmp_path, text)


def test_a_file_that_is_not_there_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match=r"absent\.toml cannot be read"):
        load_catalog(tmp_path / "absent.toml")


def test_a_model_of_the_users_stands_beside_the_built_in_ones(tmp_path: Path) -> None:
    catalog = _load(tmp_path, OWN + 'aliases = ["mine"]\nlicence = "my own"\n')
    entry = catalog.find(ModelKind.FACES, "mine")
    assert (entry.name, entry.licence, entry.advice) == ("own", "my own", "Mine.")
    assert len(catalog.entries) == len(CATALOG.entries) + 1


def test_the_advice_of_a_built_in_model_can_be_changed_and_nothing_else_changes(tmp_path: Path) -> None:
    entry = _load(tmp_path, "[[models]]\nname = 'buffalo_l'\nadvice = 'Take this one.'").find(
        ModelKind.FACES, "buffalo_l"
    )
    built_in = CATALOG.find(ModelKind.FACES, "buffalo_l")
    assert entry.advice == "Take this one."
    assert (entry.files, entry.licence, entry.embedding_size) == (
        built_in.files,
        built_in.licence,
        built_in.embedding_size,
    )


def test_two_tasks_may_use_one_name(tmp_path: Path) -> None:
    catalog = _load(tmp_path, OWN.replace('"own"', '"PP-OCRv5_mobile"'))
    assert catalog.find(ModelKind.FACES, "PP-OCRv5_mobile").family == "insightface"
    assert catalog.find(ModelKind.OCR, "PP-OCRv5_mobile").family == "pp-ocr"


@pytest.mark.parametrize(
    ("part", "names"),
    [("visual", {"visual/model.onnx", "visual/preprocess_cfg.json", "config.json"}), ("textual", None)],
)
def test_a_part_has_the_files_of_its_folder_and_those_of_the_top(part: str, names: set[str] | None) -> None:
    found = {file.name for file in CATALOG.find(ModelKind.CLIP, "ViT-B-32__openai").part_files(part)}
    assert found == (
        names or {"textual/model.onnx", "textual/tokenizer.json", "textual/tokenizer_config.json", "config.json"}
    )


def test_a_part_that_a_model_has_not_is_a_fault_of_the_caller() -> None:
    with pytest.raises(ValueError, match="detection, recognition"):
        CATALOG.find(ModelKind.OCR, "ocr").part_files("visual")
