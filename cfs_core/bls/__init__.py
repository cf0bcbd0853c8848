"""Boot Loader Specification entries: what every loader that reads them needs. Plugins may import this."""

from __future__ import annotations

from cfs_core.bls.entry import (
    Fields,
    as_one_line,
    edit_entry,
    format_entry,
    join_arguments,
    parse_entry,
    split_arguments,
)
from cfs_core.bls.files import BootFiles
from cfs_core.bls.names import (
    ENTRY_PREFIX,
    FILES_PREFIX,
    EntryName,
    argument_deployment,
    entry_priorities,
    entry_stem,
    files_name,
    guard_stem,
    name_part,
    sort_key,
    uki_deployment,
    uki_name,
)
from cfs_core.bls.scan import EntryFile, Place, has_volume, list_names, read_file, scan_entries
from cfs_core.bls.steady import default_of, is_steady
from cfs_core.bls.transition import GuardedChange, MenuFile, guard_default, plan_entries
from cfs_core.bls.version import compare_versions, version_key
from cfs_core.bls.wanted import (
    bytes_on_fat,
    kept_entry_text,
    new_entry_text,
    refuse_added_arguments,
    refuse_letters,
    unknown_entry,
)

__all__ = [
    "ENTRY_PREFIX",
    "FILES_PREFIX",
    "BootFiles",
    "EntryFile",
    "EntryName",
    "Fields",
    "GuardedChange",
    "MenuFile",
    "Place",
    "argument_deployment",
    "as_one_line",
    "bytes_on_fat",
    "compare_versions",
    "default_of",
    "edit_entry",
    "entry_priorities",
    "entry_stem",
    "files_name",
    "format_entry",
    "guard_default",
    "guard_stem",
    "has_volume",
    "is_steady",
    "join_arguments",
    "kept_entry_text",
    "list_names",
    "name_part",
    "new_entry_text",
    "parse_entry",
    "plan_entries",
    "read_file",
    "refuse_added_arguments",
    "refuse_letters",
    "scan_entries",
    "sort_key",
    "split_arguments",
    "uki_deployment",
    "uki_name",
    "unknown_entry",
    "version_key",
]
