"""Does ``rootflags=`` fit the filesystem of the root? One option that it does not know, and the root is not mounted.

Source: Linux, Documentation/admin-guide/ext4.rst, btrfs.rst and xfs.rst; btrfs(5); ext4(5); xfs(5).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfs_core.model.plan import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cfs_core.model.boot import KernelArgument

_SHARED = "acl noacl barrier nobarrier dax discard nodiscard norecovery quota usrquota grpquota prjquota"
_OPTIONS = {
    "ext4": """
        abort auto_da_alloc noauto_da_alloc block_validity noblock_validity bsddf minixdf bsdgroups sysvgroups grpid
        nogrpid commit data data_err debug debug_want_extra_isize delalloc nodelalloc dioread_lock dioread_nolock errors
        init_itable noinit_itable inlinecrypt inode_readahead_blks i_version jqfmt usrjquota grpjquota
        journal_async_commit journal_checksum nojournal_checksum journal_dev journal_ioprio journal_path max_batch_time
        min_batch_time max_dir_size_kb mb_optimize_scan nombcache no_mbcache noload nouid32 noquota oldalloc orlov
        prefetch_block_bitmaps no_prefetch_block_bitmaps resgid resuid sb stripe test_dummy_encryption user_xattr
        nouser_xattr
    """,
    "btrfs": """
        autodefrag noautodefrag check_int check_int_data clear_cache commit compress compress-force datacow nodatacow
        datasum nodatasum degraded device enospc_debug noenospc_debug fatal_errors flushoncommit noflushoncommit
        fragment inode_cache noinode_cache max_inline metadata_ratio nologreplay recovery rescan_uuid_tree rescue
        skip_balance space_cache nospace_cache ssd nossd ssd_spread nossd_spread subvol subvolid thread_pool treelog
        notreelog usebackuproot user_subvol_rm_allowed
    """,
    "xfs": """
        allocsize attr2 noattr2 bsdgroups sysvgroups filestreams grpid nogrpid gqnoenforce gquota ikeep noikeep inode32
        inode64 largeio nolargeio lifetime logbsize logbufs logdev max_open_zones noalign noquota nouuid pqnoenforce
        pquota qnoenforce rtdev sunit swalloc swidth uqnoenforce uquota wsync
    """,
}


def examine_rootflags(argument: KernelArgument, filesystem: str) -> Iterator[Finding]:
    """Yield an error for each option of *argument* that another filesystem knows, and *filesystem* does not."""
    known = {name: frozenset(text.split()) | frozenset(_SHARED.split()) for name, text in _OPTIONS.items()}
    if filesystem not in known:
        return
    for option in argument.text.partition("=")[2].strip('"').split(","):
        key = option.partition("=")[0]
        others = [name for name, options in known.items() if name != filesystem and key in options]
        if others and key not in known[filesystem]:
            message = (
                f"{argument.text!r} of {argument.origin}: {key} is an option of {' and '.join(others)}, and the root "
                f"filesystem, {filesystem}, is not mounted with it"
            )
            yield Finding.error("boot.karg-root", message, "leave it out, or choose another --filesystem")
