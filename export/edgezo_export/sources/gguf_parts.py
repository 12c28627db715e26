"""The files of a GGUF model that is split into several.

llama.cpp names them PREFIX-00001-of-00003.gguf. The first one has the metadata of the model; each
has its own number, the number of files and the number of all tensors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from edgezo_runtime.errors import EdgezoError

_PART = re.compile(r"(?P<prefix>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")
_NUMBER, _COUNT, _TENSORS = "split.no", "split.count", "split.tensors.count"


def first_part(path: Path) -> Path:
    """Return the first file of the model that a file belongs to; the file itself if it is whole.

    Raises:
        EdgezoError: the name says that there is a first file, and it is missing.
    """
    return parts_of(path)[0]


def parts_of(path: Path) -> list[Path]:
    """Return all files of the model that a file belongs to, in order.

    Raises:
        EdgezoError: files are missing; the message has their names.
    """
    found = _PART.fullmatch(path.name)
    if found is None:
        return [path]
    count = int(found["count"])
    named = [
        path.with_name(f"{found['prefix']}-{number:05}-of-{count:05}.gguf")
        for number in range(1, count + 1)
    ]
    if not 1 <= int(found["number"]) <= count:
        raise EdgezoError(f"{path}: part {int(found['number'])} of {count}; rename the file")
    missing = [file.name for file in named if not file.is_file()]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise EdgezoError(
            f"{path}: the model has {count} files, and {', '.join(missing[:3])}{more} "
            f"{'is' if len(missing) == 1 else 'are'} missing in {path.parent}; download all files "
            f"of the model to one folder"
        )
    return named


def check_parts(
    files: Sequence[Path], fields: Sequence[Mapping[str, object]], tensors: int
) -> None:
    """Check what the files of a model say of themselves.

    Args:
        files: all files, in order.
        fields: the metadata of each.
        tensors: number of tensors in all of them.
    Raises:
        EdgezoError: a file says that it is another part, or that there are other tensors.
    """
    for index, (file, own) in enumerate(zip(files, fields, strict=True)):
        count = own.get(_COUNT, 1)
        if count not in (len(files), 0) or own.get(_NUMBER, 0) != index:
            raise EdgezoError(
                f"{file}: its metadata says part {_number(own) + 1} of {count}, its name part "
                f"{index + 1} of {len(files)}; give the file the name that it was made with"
            )
    listed = fields[0].get(_TENSORS, tensors)
    if listed != tensors:
        raise EdgezoError(
            f"{files[0]}: {listed} tensors in all files, {tensors} were found; download the "
            f"model again"
        )


def _number(fields: Mapping[str, object]) -> int:
    number = fields.get(_NUMBER, 0)
    return number if isinstance(number, int) else 0
