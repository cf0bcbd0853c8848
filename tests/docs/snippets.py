"""Code blocks of the documentation: found, and run as a reader would run them."""

import os
import re
import subprocess
import sys
import sysconfig
import textwrap
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
FENCE = re.compile(
    r"(?:^ *<!-- not run: (?P<reason>[^\n]+?) -->\n)?"
    r"^(?P<indent> *)```(?:\{code-block\} )?(?P<language>\w+)\n"
    r"(?: *:caption: (?P<caption>\S+)\n\n?)?(?P<text>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
MARK = "\x01snippet"


@dataclass(frozen=True)
class Block:
    """A fenced block, its indentation taken away. ``reason`` is why it is not run: of a comment above the fence."""

    language: str
    caption: str | None
    text: str
    reason: str | None = None

    @property
    def runs(self):
        return self.reason is None and self.caption is None and self.language in {"console", "sh", "python"}


@dataclass(frozen=True)
class Command:
    """One command of a console block, and what the page shows as its output (`…` stands for anything)."""

    line: str
    shown: str


def pages():
    """Return the pages of the documentation, and every README."""
    found = {path for path in DOCS.rglob("*.md") if not {"_build", "generated", "examples"} & set(path.parts)}
    found |= {ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS.glob("examples/**/README.md")}
    return sorted(found | set((ROOT / "plugins").rglob("README.md")))


def blocks(path):
    return [
        Block(found["language"], found["caption"], textwrap.dedent(found["text"]), found["reason"])
        for found in FENCE.finditer(path.read_text())
    ]


def commands(block):
    """Split a console block at its prompts; lines that end in a backslash go on."""
    found: list[list[str]] = []
    for line in block.text.splitlines():
        if line.startswith("$ "):
            found.append([line[2:], ""])
        elif found and found[-1][0].endswith("\\"):
            found[-1][0] += "\n" + line
        elif found:
            found[-1][1] += line + "\n"
    return [Command(line, shown) for line, shown in found]


def matches(shown, printed):
    """Compare line by line; `…` is anything in its line, a line of only `…` any number of lines."""
    pattern = ""
    for line in shown.splitlines():
        if line.strip() == "…":
            pattern += r"(?:.*\n)*"
        else:
            pattern += ".*".join(re.escape(part) for part in line.rstrip().split("…")) + r"[ ]*\n"
    return re.fullmatch(pattern, printed) is not None


class Reader:
    """Somebody who follows a page in an empty directory, with a virtual environment that has what is installed here.

    ``environment`` is another one to be used instead. ``printed`` is what each command of the page wrote.
    """

    def __init__(self, folder: Path, environment: Path | None = None) -> None:
        self.home = folder / "home"
        self.here = folder / "here"
        self.here.mkdir()
        self.home.mkdir()
        self.printed: dict[str, str] = {}
        environment = environment or _like_this_one(folder / "venv")
        self.environ = {
            "PATH": f"{environment}/bin:{os.environ['PATH']}:/usr/sbin:/sbin",
            "HOME": str(self.home),
            "LC_ALL": "C.UTF-8",
            "PIP_NO_BUILD_ISOLATION": "0",  # pip's word for: do not isolate
            "PIP_NO_INDEX": "1",
            "PIP_NO_DEPS": "1",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def follow(self, path, *, also=(), seconds=280):
        """Write the files of a page, run its commands in one shell, and return what did not come out as shown.

        What has one of the reasons *also* not to be run is run all the same; CHECKOUT in it is this checkout.
        """
        script = ["exec 2>&1"]
        wanted = []
        for number, block in enumerate(blocks(path)):
            if block.reason and block.reason not in also:
                continue
            if block.caption:
                source = self.here.parent / f"block-{number}"
                source.write_text(block.text)
                target = f'"{block.caption}"'
                script.append(f'mkdir -p "$(dirname {target})"; cp "{source}" {target}')
            elif block.language == "console":
                for command in commands(block):
                    wanted.append(command)
                    script.append(f"{command.line}\n_s=$?; printf '{MARK} %s\\n' $_s; (exit $_s)")
            elif block.language == "sh":
                text = block.text.replace("CHECKOUT", str(ROOT)) if block.reason else block.text
                script.append(f"bash -e <<'END_OF_SNIPPET'\n{text}END_OF_SNIPPET\n_s=$?")
                script.append(f"printf '{MARK} %s\\n' $_s")
                wanted.append(Command(block.text.strip(), "…\n"))
            elif block.language == "python":
                script.append(f"python - <<'END_OF_SNIPPET'\n{block.text}END_OF_SNIPPET\n_s=$?")
                script.append(f"printf '{MARK} %s\\n' $_s")
                wanted.append(Command("python", "…\n"))
        done = subprocess.run(
            ["bash"], input="\n".join(script) + "\n", cwd=self.here, env=self.environ, capture_output=True, text=True,
            check=False, timeout=seconds,
        )  # fmt: skip
        parts = re.split(rf"{MARK} (\d+)\n", done.stdout)
        results = list(zip(parts[::2], parts[1::2], strict=False))
        self.printed = {each.line: printed for each, (printed, _) in zip(wanted, results, strict=False)}
        return list(_judged(wanted, results, done.stdout))


def _like_this_one(environment: Path) -> Path:
    """Make a virtual environment in which everything is there that this one has."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    packages = next((environment / "lib").glob("python*/site-packages"))
    here = sysconfig.get_paths()["purelib"]
    (packages / "outer.pth").write_text(f"import site; site.addsitedir({here!r})\n")
    for name, module in {"cfs": "cfs_core", "pip": "pip", "pytest": "pytest"}.items():
        program = environment / "bin" / name
        program.write_text(f'#!/bin/sh\nexec "{environment}/bin/python" -m {module} "$@"\n')
        program.chmod(0o755)
    return environment


def _judged(wanted, results, output):
    for index, command in enumerate(wanted):
        if index >= len(results):
            yield f"$ {command.line}\nwas not reached; the end was:\n{output[-2000:]}"
            return
        printed, status = results[index]
        asked = index + 1 < len(wanted) and wanted[index + 1].line.startswith("echo $?")
        if status != "0" and not asked:
            yield f"$ {command.line}\nended with {status}:\n{printed}"
        elif not matches(command.shown, printed):
            yield f"$ {command.line}\nis shown as\n{command.shown}\nand printed\n{printed}"
