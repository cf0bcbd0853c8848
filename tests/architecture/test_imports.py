"""The rules of the house, read from the source: who imports whom, where things are, how long they get."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CORE = ROOT / "cfs_core"
PLUGINS = sorted(path.parent for path in (ROOT / "plugins").rglob("pyproject.toml") if ".venv" not in path.parts)
KIT = "cfs_testkit"

STABLE = set(
    re.findall(r"^\| `(cfs_core\.\w+)` \| plugins \|", (ROOT / "docs/api-policy.md").read_text(), re.MULTILINE)
)
"""What a plugin may import of core. The kit may also import `cfs_core.testing`."""

LAYERS = [
    {"errors", "model", "system"},
    {"hookspecs", "interfaces"},
    {"archive"},
    {"target"},
    {"bls"},
    {"image"},
    {"plugin", "tar"},
    {"config", "pluginhost", "report"},
    {"deploy"},
    {"examine"},
    {"app", "install", "lifecycle", "sealing"},
    {"documents", "testing"},
    {"cli", "__main__"},
]
"""Rooms of core; one imports only from those above it in this list."""

NEIGHBOURS = {("__main__", "cli"), ("hookspecs", "interfaces"), ("model", "errors"), ("system", "errors")}
"""Imports inside one layer that are meant, importer first."""

CEILING = 450
LONGER = {
    "cfs_core/plugin.py": "a list of names, once for type checkers and once for the interpreter",
}
"""Source files past the ceiling, and why that is better than two files."""


@cache
def parsed(path):
    return ast.parse(path.read_text())


def imported(path):
    """Yield every module that *path* imports, those for type checkers only included."""
    package = ".".join(path.relative_to(ROOT).parent.parts)
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            assert node.level == 0, f"{path}: relative import in {package}"
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names if base in {"cfs_core", "cfs_core.cli"})


def sources(folder):
    return sorted(path for path in folder.rglob("*.py") if "tests" not in path.relative_to(folder).parts)


def package_of(plugin):
    (package,) = [path for path in plugin.glob("cfs_*") if path.is_dir()]
    return package


def plugin_name(plugin):
    return plugin.relative_to(ROOT / "plugins").as_posix()


def room(module):
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[0] == "cfs_core" else None


def test_the_list_of_rooms_is_complete():
    rooms = {path.stem for path in CORE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert rooms - {"__init__"} <= set().union(*LAYERS)


@pytest.mark.parametrize("path", sources(CORE), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_core_imports_one_way_and_no_plugin(path):
    rank = {name: number for number, names in enumerate(LAYERS) for name in names}
    here = room(".".join(path.relative_to(ROOT).with_suffix("").parts))
    wrong = []
    for module in imported(path):
        assert not re.match(r"cfs_(?!core)", module), f"core imports the plugin {module}"
        there = room(module)
        if there not in rank or here in {there, "__init__"}:
            continue
        if rank[there] > rank[here] or (rank[there] == rank[here] and (here, there) not in NEIGHBOURS):
            wrong.append(module)
    assert wrong == []


@pytest.mark.parametrize("plugin", PLUGINS, ids=plugin_name)
def test_a_plugin_imports_the_stable_modules_of_core_and_no_other_plugin(plugin):
    own = package_of(plugin).name
    allowed = STABLE | ({"cfs_core.testing"} if own == KIT else set())
    wrong = {}
    for path in sources(plugin):
        for module in imported(path):
            if (module.startswith("cfs_core") and module not in allowed) or (
                re.match(r"cfs_(?!core)", module) and module.split(".")[0] != own
            ):
                wrong.setdefault(path.relative_to(ROOT).as_posix(), set()).add(module)
    assert wrong == {}


def test_examples_and_new_plugins_import_what_the_policy_lists():
    assert len(STABLE) == 4
    examples = [path for path in sources(ROOT / "docs/examples") if "tests" not in path.parts]
    assert len(examples) > 10
    wrong = {(path.name, module) for path in examples for module in imported(path) if module.startswith("cfs_core")}
    assert {(name, module) for name, module in wrong if module not in STABLE} == set()
    templates = sorted((CORE / "cli/templates").rglob("*.py.tmpl"))
    assert len(templates) > 5
    for template in templates:
        modules = set(re.findall(r"^(?:from|import) (cfs_core[\w.]*)", template.read_text(), re.MULTILINE))
        assert modules <= (STABLE | {"cfs_core.testing"} if "test" in template.name else STABLE), template


@pytest.mark.parametrize("plugin", PLUGINS, ids=plugin_name)
def test_every_plugin_folder_looks_the_same(plugin):
    package = package_of(plugin)
    names = {"pyproject.toml", "README.md", f"{package.name}/__init__.py", f"{package.name}/py.typed"}
    names |= {f"{package.name}/{'pytest_plugin' if package.name == KIT else 'plugin'}.py"}
    assert {name for name in names if not (plugin / name).exists()} == set()
    assert list((plugin / "tests").glob("test_*.py"))
    project = (plugin / "pyproject.toml").read_text()
    assert '"cfs-core>=0.1,<0.2"' in project
    assert 'build-backend = "hatchling.build"' in project


@pytest.mark.parametrize("plugin", [p for p in PLUGINS if package_of(p).name != KIT], ids=plugin_name)
def test_the_plugin_module_is_light(plugin):
    """Hook functions and small makers only; whatever costs time is imported when a provider is chosen."""
    path = package_of(plugin) / "plugin.py"
    tree = parsed(path)
    at_load = [
        module
        for node in tree.body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for module in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names])
    ]
    assert set(at_load) <= {"__future__", "typing", "cfs_core.plugin", "functools"}
    assert not [node.name for node in tree.body if isinstance(node, ast.ClassDef)]


def file_imports(package):
    """Return, for every module of *package*, the modules of it that its file imports, wherever in the file that is."""
    files = {
        ".".join(path.relative_to(package.parent).with_suffix("").parts).removesuffix(".__init__"): path
        for path in sources(package)
    }
    found = {}
    for name, path in files.items():
        used = set()
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Import):
                used |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                inside = {f"{node.module}.{alias.name}" for alias in node.names}
                used |= (inside & files.keys()) or {node.module}
        found[name] = used & files.keys() - {name}
    return found


def circles(graph):
    """Return what is left of *graph* when everything that leads nowhere, or to which nothing leads, is taken away."""
    left = {name: set(used) for name, used in graph.items()}
    while True:
        wanted = set().union(*left.values()) if left else set()
        ends = {name for name, used in left.items() if not used or name not in wanted}
        if not ends:
            return left
        left = {name: used - ends for name, used in left.items() if name not in ends}


@pytest.mark.parametrize("package", [CORE, *map(package_of, PLUGINS)], ids=lambda path: path.name)
def test_files_do_not_import_each_other_in_a_circle(package):
    """Also not for type checkers only, or inside a function: two files that need each other are one, or three."""
    assert circles(file_imports(package)) == {}


def test_a_circle_of_files_would_be_found():
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set()}
    assert circles(graph) == {"b": {"c"}, "c": {"b"}}
    assert circles({"a": {"b"}, "b": set()}) == {}


def test_every_hook_is_documented():
    tree = parsed(CORE / "hookspecs.py")
    hooks = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    assert len(hooks) >= 11
    for hook in hooks:
        assert hook.name.startswith("cfs_")
        assert ast.get_docstring(hook)
        assert hook.returns is not None
        assert all(argument.annotation for argument in hook.args.args)


def test_every_interface_method_is_documented():
    for path in sources(CORE / "interfaces"):
        for node in ast.walk(parsed(path)):
            if not isinstance(node, ast.ClassDef) or node.name.startswith("_"):
                continue
            assert ast.get_docstring(node), (path.name, node.name)
            for method in node.body:
                if isinstance(method, ast.FunctionDef) and not re.fullmatch(r"__.*__|_[a-z_]*", method.name):
                    assert ast.get_docstring(method), (path.name, node.name, method.name)


def test_oras_stays_in_one_file():
    users = {
        path.relative_to(ROOT).as_posix()
        for folder in (CORE, ROOT / "plugins")
        for path in sources(folder)
        if any(module.split(".")[0] == "oras" for module in imported(path))
    }
    assert users == {"plugins/transports/registry/cfs_transport_registry/oras_client.py"}


def test_only_the_command_line_prints_or_exits():
    wrong = []
    for path in [*sources(CORE), *(source for plugin in PLUGINS for source in sources(plugin))]:
        if path.is_relative_to(CORE / "cli") or path.name == "commands.py":
            continue
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                if called in {"print", "exit", "quit", "sys.exit", "os._exit", "click.echo"}:
                    wrong.append(f"{path.relative_to(ROOT)}:{node.lineno} {called}")
    assert wrong == []


def test_the_command_line_makes_no_run_and_defines_no_document():
    """What a run has is made by `cfs_core.app`; the keys of public JSON are chosen by `cfs_core.documents`."""
    made, defined = [], []
    for path in sources(CORE / "cli"):
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                where = f"{path.relative_to(ROOT)}:{node.lineno} {node.func.id}"
                if node.func.id in {"HostCommands", "Logs", "PluginContext", "PluginHost", "load_settings"}:
                    made.append(where)
                is_call = node.args and isinstance(node.args[0], ast.Call | ast.Name | ast.ListComp | ast.Subscript)
                if node.func.id == "show_json" and not is_call:
                    defined.append(where)
    assert (made, defined) == ([], [])


VERBS = re.compile(r"_?(?:check|judge|verify|look|inspect|validate)(?:_\w+)?")


def test_what_yields_findings_examines():
    """One word for each: to examine yields findings, to check refuses, to judge is a policy's, to verify is by digests.

    The methods of interfaces are called as their authors' fields do: ``check`` of a filesystem is its ``fsck``.
    """
    wrong = []
    for path in sources(CORE):
        if path.parent.name == "interfaces":
            continue
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.FunctionDef) and node.returns is not None and VERBS.fullmatch(node.name):
                methods = path.name == "read.py"  # DiskImage.check is layouts' and filesystems'
                if re.search(r"\bFinding\b", ast.unparse(node.returns)) and not methods:
                    wrong.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}")
    assert wrong == []


ROOMS_OF_VERBS = ("app", "deploy", "documents", "examine", "install", "lifecycle", "sealing")
LONGEST, MOST_PARAMETERS = 50, 6


def functions(folder):
    for path in sources(folder):
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{path.relative_to(ROOT)}:{node.lineno} {node.name}", node


def parameters(function):
    """Return how many arguments callers give: ``self`` and ``cls`` are not theirs."""
    given = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    return [each.arg for each in given if each.arg not in {"self", "cls"}]


@pytest.mark.parametrize("name", ROOMS_OF_VERBS)
def test_functions_are_short_and_ask_for_little(name):
    found = list(functions(CORE / name))
    assert found
    long = [where for where, node in found if node.end_lineno - node.lineno + 1 >= LONGEST]
    many = [where for where, node in found if len(parameters(node)) > MOST_PARAMETERS]
    assert (long, many) == ([], [])


@pytest.mark.parametrize("folder", [CORE, *map(package_of, PLUGINS)], ids=lambda path: path.name)
def test_no_assert_decides(folder):
    """``python -O`` leaves asserts out; the kit's are what its tests say."""
    if folder.name == KIT:
        pytest.skip("a kit for tests asserts")
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in sources(folder)
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Assert)
    ]
    assert wrong == []


def test_files_stay_short():
    files = [*sources(CORE), *(source for plugin in PLUGINS for source in sources(plugin))]
    long = {
        path.relative_to(ROOT).as_posix(): count
        for path in files
        if (count := path.read_text().count("\n")) > CEILING and path.relative_to(ROOT).as_posix() not in LONGER
    }
    assert long == {}


def test_every_module_says_in_a_line_what_it_holds():
    missing = [
        path.relative_to(ROOT).as_posix()
        for path in [*sources(CORE), *(source for plugin in PLUGINS for source in sources(plugin))]
        if not (ast.get_docstring(parsed(path)) or "").strip()
    ]
    assert missing == []


CONTAINERS = {"list", "dict", "set", "bytearray", "defaultdict", "deque", "OrderedDict", "Counter"}
CHANGES = {
    "add", "append", "appendleft", "clear", "discard", "extend", "insert", "pop", "popitem", "remove", "setdefault",
    "sort", "update",
}  # fmt: skip


def containers(tree):
    """Return the names of a module's lists, dictionaries and sets."""
    found = set()
    for node in tree.body:
        value = getattr(node, "value", None)
        if not isinstance(node, ast.Assign | ast.AnnAssign) or value is None:
            continue
        mutable = isinstance(value, ast.List | ast.Dict | ast.Set | ast.ListComp | ast.DictComp | ast.SetComp)
        called = ast.unparse(value.func).rpartition(".")[2] if isinstance(value, ast.Call) else ""
        if mutable or called in CONTAINERS:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return found


def changed(function):
    """Yield (line, name) of containers that a function changes; its own variables are left out."""
    own = {node.id for node in ast.walk(function) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    own |= {argument.arg for argument in ast.walk(function) if isinstance(argument, ast.arg)}
    for node in ast.walk(function):
        target = None
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
            target = node.value
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CHANGES:
            target = node.func.value
        if isinstance(target, ast.Name) and target.id not in own:
            yield node.lineno, target.id


def global_state(tree):
    """Yield lines at which a function changes what belongs to its module."""
    known = containers(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Global):
            yield node.lineno
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from (line for line, name in changed(node) if name in known)


def test_no_global_state():
    """No function assigns to a name of its module, or puts something into a list, dictionary or set that lies there."""
    wrong = []
    for path in [*sources(CORE), *(source for plugin in PLUGINS for source in sources(plugin))]:
        wrong += [f"{path.relative_to(ROOT)}:{line}" for line in global_state(parsed(path))]
    assert wrong == []


@pytest.mark.parametrize(
    "body",
    [
        "A = []\ndef f(x): A.append(x)",
        "A: dict[str, int] = {}\ndef f(x): A[x] = 1",
        "A = set()\nclass C:\n def f(self): A.add(1)",
        "A = collections.defaultdict(list)\nf = lambda x: A.pop(x)",
        "A = 1\ndef f():\n global A\n A = 2",
    ],
)
def test_global_state_would_be_found(body):
    assert list(global_state(ast.parse(body)))
    assert not list(global_state(ast.parse("A = []\ndef f(A): A.append(1)\ndef g():\n A = []\n A.append(1)")))


@pytest.mark.parametrize("plugin", PLUGINS, ids=plugin_name)
def test_tests_of_a_plugin_need_core_the_kit_and_the_plugin_only(plugin):
    own = {package_of(plugin).name, "cfs_core", KIT}
    wrong = {}
    for path in (plugin / "tests").rglob("*.py"):
        if "references" in path.parts:
            continue  # packages of their own, installed by the tests of the kit
        for module in imported(path):
            first = module.split(".")[0]
            if first == "builders" or (first.startswith("cfs_") and first not in own):
                wrong.setdefault(path.relative_to(ROOT).as_posix(), set()).add(module)
    assert wrong == {}
