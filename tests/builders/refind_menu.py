"""Gives a refind.conf with one deployment another one above it, and makes the plugin's plan for the wanted choice.

Usage: refind_menu.py FACTS WANTED, run where cfs-refind is installed. FACTS is a JSON file: ``config`` (refind.conf),
``partition`` (of the ESP), ``other`` (an id that the disk has no deployment of). WANTED is ``default`` (of the
deployment that is there, second in the menu) or ``once``. Prints files and firmware variables, in hexadecimal.
"""

import json
import sys
from pathlib import Path

from cfs_refind.bootloader import Refind

from cfs_core.plugin import Architecture, BootFacts, BootMenu, Firmware, Location, Partition, Volume, WriteFile
from cfs_core.testing import MemoryTarget

facts = json.loads(Path(sys.argv[1]).read_text())
home = Location(Volume.ESP, "/EFI/BOOT")
config = home / "refind.conf"
loader = Refind()
esp = MemoryTarget([Partition(volume=Volume.ESP, **facts["partition"])])
esp.apply(WriteFile(location=config, data=facts["config"].encode(), why="as installed"))
(real,) = loader.read_menu(esp).entries

start = facts["config"].index("menuentry ")
end = facts["config"].index("\n}\n", start) + 3
stanza = facts["config"][start:end]
another = stanza.replace(f"[{real.deployment_id[:16]}]", f"[{facts['other'][:16]}]")
kernel, options = another.split("    options ")
another = f"{kernel}    options {options.replace(real.deployment_id, facts['other'])}"
two = facts["config"][:start] + another + facts["config"][start:]
esp.apply(WriteFile(location=config, data=two.encode(), why="two deployments, the new one first"))
there = loader.read_menu(esp)
assert [entry.deployment_id for entry in there.entries] == [facts["other"], real.deployment_id]

choice = {"default": real.deployment_id}
if sys.argv[2] == "once":
    choice = {"default": facts["other"], "once": real.deployment_id}
machine = BootFacts(architecture=Architecture.AMD64, firmware=frozenset({Firmware.UEFI}), generic=False)
for action in loader.plan_menu(esp, there, BootMenu(entries=there.entries, **choice), machine):
    esp.apply(action)
written = {name: esp.read(home / name).hex() for name in esp.names(home)}
variables = [[guid, name, data.hex()] for (guid, name), data in esp.efi_variables.items()]
print(json.dumps({"files": written, "variables": variables, "real": real.deployment_id}))
