"""Moved to ``models.convert.tokenizer``; the names here are those of ``models/tiny``."""

from models.convert.tokenizer import CONTEXT_LENGTH as CONTEXT_LENGTH
from models.convert.tokenizer import cn_clip_folder as package_folder
from models.convert.tokenizer import cn_clip_tokenizer as cnclip_tokenizer

__all__ = ["CONTEXT_LENGTH", "cnclip_tokenizer", "package_folder"]
