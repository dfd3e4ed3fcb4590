"""Imports go down only, as docs/design.md draws it, and never in a circle."""

import ast
from pathlib import Path

import channels_groups

ROOT = Path(channels_groups.__file__).parent

#: From the bottom to the top. A module imports from its own level and below.
LEVELS = [
    [
        *("conf", "deadline", "exceptions", "facts", "meters"),
        *("migrations", "models"),
        *("names", "signals"),
    ],
    ["stores", "database"],
    [
        *("connection", "evictor", "lease", "listing", "messages", "places"),
        *("receiver", "relay", "thread"),
    ],
    [
        *("announcer", "changes", "groups", "membership", "node", "shard"),
        *("shutdown", "users", "state", "watch", "writer"),
    ],
    ["manager"],
    [
        *("admin", "apps", "checks", "consumers", "counts", "lifecycle", "management"),
        *("metrics", "routing", "templatetags", "testing"),
    ],
    ["pytest_plugin"],
]
LEVEL = {name: number for number, names in enumerate(LEVELS) for name in names}


class Imports(ast.NodeVisitor):
    """The modules of this package that a module imports when it runs."""

    def __init__(self, module, is_package):
        self.package = module if is_package else module.rpartition(".")[0]
        self.found = set()

    def visit_If(self, node):
        if ast.unparse(node.test).rpartition(".")[2] == "TYPE_CHECKING":
            for statement in node.orelse:
                self.visit(statement)
        else:
            self.generic_visit(node)

    def visit_Import(self, node):
        self.found.update(alias.name for alias in node.names)

    def visit_ImportFrom(self, node):
        base = node.module or ""
        if node.level:
            parts = self.package.split(".")
            above = parts[: len(parts) - node.level + 1]
            base = ".".join([*above, base] if base else above)
        self.found.update(f"{base}.{alias.name}" for alias in node.names)
        self.found.add(base)


def read_modules():
    """Return each module's name and path."""
    modules = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        if parts[-1] == "__init__":
            parts = parts[:-1]
        modules[".".join(parts)] = path
    return modules


def read_imports():
    """Return which modules of the package each imports, at run time."""
    modules = read_modules()
    imports = {}
    for name, path in modules.items():
        visitor = Imports(name, path.name == "__init__.py")
        visitor.visit(ast.parse(path.read_text()))
        imports[name] = {one for one in visitor.found if one in modules} - {name}
    return imports


def level_of(module):
    """Return the level of a module, None for the package itself."""
    parts = module.split(".")
    return LEVEL[parts[1]] if len(parts) > 1 else None


def test_every_module_has_a_level():
    names = {name.split(".")[1] for name in read_modules() if "." in name}
    assert names <= set(LEVEL)
    assert {"consumers", "node", "stores", "conf"} <= names


def test_imports_go_down_only():
    imports = read_imports()
    assert "channels_groups.node" in imports["channels_groups.manager"]
    assert "channels_groups.stores.base" in imports["channels_groups.relay"]
    upwards = [
        f"{module} imports {other}"
        for module, others in imports.items()
        for other in others
        if level_of(module) is not None and level_of(other) is not None
        if level_of(other) > level_of(module)
    ]
    assert upwards == []


def test_the_package_itself_imports_nothing_and_is_imported_for_its_modules():
    assert read_imports()["channels_groups"] == set()


def test_imports_never_go_in_a_circle():
    imports = read_imports()
    packages = {name for name in imports if f"{name}." in " ".join(imports)}

    def visit(module, path):
        assert module not in path, " -> ".join([*path, module])
        if module in done:
            return
        for other in imports[module] - packages:
            visit(other, [*path, module])
        done.add(module)

    done = set()
    for module in imports:
        visit(module, [])
    assert done == set(imports)


def test_stores_know_nothing_of_django_channels_consumers():
    for module, others in read_imports().items():
        if module.startswith("channels_groups.stores"):
            assert all(level_of(other) in (0, 1, None) for other in others)
