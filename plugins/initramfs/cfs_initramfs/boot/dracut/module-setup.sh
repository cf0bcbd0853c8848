#!/bin/bash
# dracut module of cfs-initramfs: mounts the composefs root named on the kernel command line.

# Always wanted where it is installed: an image without it does not boot.
check() {
    require_binaries mount umount cat mkdir chmod modprobe || return 1
    return 0
}

depends() {
    return 0
}

installkernel() {
    # hostonly would leave out what the machine that builds the image does not use
    hostonly='' instmods erofs overlay loop
}

install() {
    local unit=/usr/lib/systemd/system/cfs-setup-root.service
    local wanted="${initdir:?}/usr/lib/systemd/system/initrd-root-fs.target.requires"

    inst_multiple mount umount cat mkdir chmod modprobe
    inst_multiple -o dmesg readlink
    inst_simple /usr/lib/cfs/cfs-setup-root
    if [[ -e /usr/lib/composefs/setup-root-conf.toml ]]; then
        inst_simple /usr/lib/composefs/setup-root-conf.toml
    fi
    if dracut_module_included systemd-initrd || dracut_module_included systemd; then
        # not $systemdsystemconfdir, which is empty in some distributions' dracut
        inst_simple /usr/lib/cfs/cfs-setup-root.service "$unit"
        mkdir -p "$wanted"
        ln -sfn ../cfs-setup-root.service "$wanted/cfs-setup-root.service"
    else
        inst_multiple blkid tr uname
        inst_hook pre-pivot 20 "${moddir:?}/pre-pivot.sh"
    fi
}
