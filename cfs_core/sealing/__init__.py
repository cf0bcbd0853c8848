"""Images that are opened to be sealed, or to be judged as sealed ones. Plugins may import this."""

from __future__ import annotations

from cfs_core.deploy.choose import NoKernelError
from cfs_core.deploy.services import Services
from cfs_core.image.difference import differences, sealed_dump
from cfs_core.image.kernel_arguments import collect_arguments
from cfs_core.image.pe import PeFile, pkcs_signatures, read_pe
from cfs_core.image.sealed import SealedDigest, command_line, effective, parse_words, sealed_arguments
from cfs_core.sealing.append import append_layer
from cfs_core.sealing.explain import Explanation, explain
from cfs_core.sealing.fitness import Fitness, examine, examine_arguments
from cfs_core.sealing.layer import AddedLayer
from cfs_core.sealing.opened import OpenedImage, open_image

__all__ = [
    "AddedLayer",
    "Explanation",
    "Fitness",
    "NoKernelError",
    "OpenedImage",
    "PeFile",
    "SealedDigest",
    "Services",
    "append_layer",
    "collect_arguments",
    "command_line",
    "differences",
    "effective",
    "examine",
    "examine_arguments",
    "explain",
    "open_image",
    "parse_words",
    "pkcs_signatures",
    "read_pe",
    "sealed_arguments",
    "sealed_dump",
]
