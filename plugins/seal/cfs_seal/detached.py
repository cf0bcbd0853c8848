"""Signing on another host: what is handed over, and what comes back."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cfs_core.plugin import ImageId, RefusedError, UsageError, VerificationError, parse_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NOTE = "seal.json"
UNSIGNED = "unsigned"
NOTE_LIMIT = 1 << 20
_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Handover:
    """What was built of which image. ``places`` are file names by their place in the image."""

    manifest_digest: str
    image_id: ImageId
    arguments: tuple[str, ...]
    uki: str
    places: Mapping[str, str]
    folders: tuple[Path, ...] = ()
    """Where it was read from, one for each signing host."""

    def check(self, manifest_digest: str, image_id: ImageId) -> None:
        """Hold it against the image that is to be sealed now.

        Raises:
            VerificationError: it was made of another image.
        """
        if (manifest_digest, image_id) != (self.manifest_digest, self.image_id):
            msg = f"the files were made for {self.manifest_digest}, and the image is {manifest_digest}"
            if manifest_digest == self.manifest_digest:
                msg = f"the files were made for the digest {self.image_id:.16}…, and these options make {image_id:.16}…"
            hint = "give SOURCE by its digest and the same options, or begin again with --unsigned-to"
            raise VerificationError(msg, hint=hint, facts={"expected": self.image_id, "found": image_id})

    def files(self) -> dict[str, tuple[Path, list[Path]]]:
        """Return the unsigned file and the signed ones by their place in the image.

        Raises:
            UsageError: a file did not come back.
        """
        found: dict[str, tuple[Path, list[Path]]] = {}
        for place, name in self.places.items():
            signed = [folder / name for folder in self.folders if (folder / name).is_file()]
            unsigned = [folder / UNSIGNED / name for folder in self.folders if (folder / UNSIGNED / name).is_file()]
            if not signed:
                msg = f"there is no signed {name} in {', '.join(map(str, self.folders))}"
                raise UsageError(msg, hint=f"sign {UNSIGNED}/{name}, and write the result beside {NOTE}")
            # A signed file is the unsigned one and its signatures, so it can stand in for it.
            found[place] = (unsigned[0] if unsigned else signed[0], signed)
        return found


def write_handover(folder: Path, handover: Handover, built: Mapping[str, Path]) -> tuple[Path, ...]:
    """Write the files that are to be signed, and what they were made of; return the files.

    Raises:
        RefusedError: something is in *folder* already, or it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            msg = f"{folder} is not empty"
            raise RefusedError(msg, hint="name a new directory with --unsigned-to")
        (folder / UNSIGNED).mkdir()
        made = []
        for path in built.values():
            made.append(folder / UNSIGNED / path.name)
            shutil.copyfile(path, made[-1])
        note = {
            "version": _VERSION,
            "source_manifest_digest": handover.manifest_digest,
            "image_id": handover.image_id,
            "arguments": list(handover.arguments),
            "uki": handover.uki,
            "files": dict(handover.places),
        }
        (folder / NOTE).write_text(json.dumps(note, indent=2) + "\n", encoding="utf-8")
    except OSError as cause:
        msg = f"{folder} cannot be written: {cause.strerror}"
        raise RefusedError(msg, hint="name another directory with --unsigned-to") from cause
    return tuple(made)


def read_handover(folders: Sequence[Path]) -> Handover:
    """Read what came back, from each signing host a directory.

    Raises:
        UsageError: it is not there, or the directories are not of one image.
    """
    notes = {(folder / NOTE).read_bytes() for folder in folders if (folder / NOTE).is_file()}
    if len(notes) != 1 or len(notes.pop()) > NOTE_LIMIT:
        msg = f"the directories of --signed-from must have one and the same {NOTE}"
        raise UsageError(msg, hint=f"hand {NOTE} on with the files that --unsigned-to wrote")
    (note,) = {(folder / NOTE).read_bytes() for folder in folders if (folder / NOTE).is_file()}
    fields = parse_json(note, NOTE)
    if fields.get("version") != _VERSION:
        msg = f"{NOTE} is of version {fields.get('version')!r:.20}, and {_VERSION} is known"
        raise UsageError(msg, hint="use the cfs that wrote it")
    places = fields.strings("files")
    for name in places.values():
        if Path(name).name != name:
            msg = f"{NOTE} names {name!r:.100}, which is no plain file name"
            raise UsageError(msg, hint="begin again with --unsigned-to")
    uki = fields.string("uki")
    if uki not in places:
        msg = f"{NOTE} names no file for {uki!r:.100}"
        raise UsageError(msg, hint="begin again with --unsigned-to")
    return Handover(
        manifest_digest=fields.string("source_manifest_digest"),
        image_id=ImageId(fields.string("image_id")),
        arguments=tuple(str(each) for each in fields.array("arguments", 1024)),
        uki=uki,
        places=places,
        folders=tuple(folders),
    )
