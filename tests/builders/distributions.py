"""Small distributions that are really installed: a folder with modules and dist-info, put on the module path."""

import json
import os
import subprocess
import sys
import textwrap

RUN = "from cfs_core.cli.main import main; main()"


class Site:
    """A folder of installed distributions, and the command ``cfs`` run with it (and nothing else) as plugins."""

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir(exist_ok=True)

    def install(self, name, version, entry_points, modules):
        """Install distribution *name*; *modules* maps file names to source, *entry_points* names to modules."""
        for file, source in modules.items():
            path = self.folder / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(source))
        info = self.folder / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        lines = "".join(f"{entry} = {module}\n" for entry, module in entry_points.items())
        (info / "entry_points.txt").write_text(f"[cfs.plugins]\n{lines}")
        return self

    def python(self, code, *argv, options=(), **environ):
        """Run Python with this folder first on its path; *options* are Python's own."""
        env = {key: value for key, value in os.environ.items() if not key.startswith("CFS_")}
        env["PYTHONPATH"] = os.fspath(self.folder)
        return subprocess.run(
            [sys.executable, *options, "-c", code, *argv],
            check=False,
            capture_output=True,
            text=True,
            env=env | environ,
            timeout=60,
        )

    def cfs(self, *argv, **environ):
        """Run ``cfs``; plugins that the development environment has are switched off by name."""
        from importlib.metadata import entry_points

        ours = {"NO_COLOR": "1", "CFS_DISABLE_PLUGINS": ",".join(e.name for e in entry_points(group="cfs.plugins"))}
        return self.python(RUN, *argv, **(ours | environ))

    def json(self, *argv):
        """Run ``cfs … --format json`` and return the result, whatever the exit status."""
        done = self.cfs(*argv, "--format", "json")
        return json.loads(done.stdout), done
