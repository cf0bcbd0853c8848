"""Boot Loader Specification entries: what every loader that reads them needs. Plugins may import this."""

from __future__ import annotations

from cfs_core.bls.entry import (
    Fields,
    edit_entry,
    every,
    first,
    format_entry,
    join_arguments,
    one_line,
    parse_entry,
    split_arguments,
)
from cfs_core.bls.files import BootFiles
from cfs_core.bls.names import (
    FILES_PREFIX,
    EntryName,
    argument_deployment,
    entry_stem,
    files_name,
    guard_stem,
    priorities,
    safe,
    sort_key,
    uki_deployment,
    uki_name,
)
from cfs_core.bls.scan import EntryFile, Place, has_volume, list_names, read_file, scan_entries
from cfs_core.bls.steady import default_of, is_steady
from cfs_core.bls.transition import Files, plan_entries
from cfs_core.bls.version import compare_versions, version_key

__all__ = [
    "FILES_PREFIX",
    "BootFiles",
    "EntryFile",
    "EntryName",
    "Fields",
    "Files",
    "Place",
    "argument_deployment",
    "compare_versions",
    "default_of",
    "edit_entry",
    "entry_stem",
    "every",
    "files_name",
    "first",
    "format_entry",
    "guard_stem",
    "has_volume",
    "is_steady",
    "join_arguments",
    "list_names",
    "one_line",
    "parse_entry",
    "plan_entries",
    "priorities",
    "read_file",
    "safe",
    "scan_entries",
    "sort_key",
    "split_arguments",
    "uki_deployment",
    "uki_name",
    "version_key",
]
