"""The shape of the code: one-way imports, quiet imports, sizes, links, and a wheel that works away from the checkout."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "driftline"
MODULE_LINES_MAX = 400
FUNCTION_LINES_MAX = 60

# A part may import its own layer and those below it.
LAYERS = {"schemas": 0, "detectors": 1, "streams": 2, "publish": 3, "demo": 3, "backtest": 3, "cli": 4, "__main__": 5}
PARTS = ("schemas", "detectors", "streams")

# Numerics see no network, no clock, no environment and no randomness that was not passed in.
BANNED_IN_DETECTORS = {
    "aiokafka", "asyncio", "confluent_kafka", "datetime", "faust", "http", "prometheus_client", "random", "redis", "socket",
    "subprocess", "threading", "time", "urllib",
}  # fmt: skip

SOURCES = sorted(PACKAGE.rglob("*.py"))


def _module(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _part(module: str) -> str | None:
    names = module.split(".")
    return names[1] if names[0] == "driftline" and len(names) > 1 else None


def _imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            # `from driftline import cli` names the part in the list, not in the module.
            yield from ((node.lineno, f"{node.module}.{alias.name}" if node.module == "driftline" else node.module) for alias in node.names)


def test_imports_go_one_way_from_cli_to_streams_to_detectors_to_schemas() -> None:
    upward = []
    for path in SOURCES:
        mine = _part(_module(path))
        if mine is None:
            continue
        for line, imported in _imports(ast.parse(path.read_text())):
            theirs = _part(imported)
            if theirs in LAYERS and LAYERS[theirs] > LAYERS[mine]:
                upward.append(f"{path.relative_to(ROOT)}:{line} imports {imported}")
    assert upward == []


def test_every_part_of_the_package_has_a_layer() -> None:
    parts = {_part(_module(path)) for path in SOURCES} - {None}
    assert parts <= set(LAYERS), "a new part needs a place among LAYERS"


def test_the_parts_are_never_imported_by_their_link_names() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for folder in ("driftline", "tests", "benchmarks")
        for path in (ROOT / folder).rglob("*.py")
        for line, name in _imports(ast.parse(path.read_text()))
        if name.split(".")[0] in PARTS
    ]
    assert wrong == []


def test_detectors_touch_no_network_no_clock_and_no_environment() -> None:
    wrong = []
    for path in sorted((PACKAGE / "detectors").rglob("*.py")):
        tree = ast.parse(path.read_text())
        for line, name in _imports(tree):
            if name.split(".")[0] in BANNED_IN_DETECTORS:
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {name}")
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr in {"environ", "getenv"}:
                wrong.append(f"{path.relative_to(ROOT)}:{node.lineno} reads the environment")
    assert wrong == []


def test_state_is_never_pickled() -> None:
    banned = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in SOURCES
        for line, name in _imports(ast.parse(path.read_text()))
        if name.split(".")[0] in banned
    ]
    assert wrong == []


def test_no_module_is_longer_than_400_lines() -> None:
    sizes = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in SOURCES}
    assert {name: lines for name, lines in sizes.items() if lines > MODULE_LINES_MAX} == {}


def test_no_function_is_longer_than_60_lines() -> None:
    long = {}
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None:
                lines = node.end_lineno - node.lineno + 1
                if lines > FUNCTION_LINES_MAX:
                    long[f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"] = lines
    assert long == {}


def test_no_module_has_a_name_that_says_nothing() -> None:
    empty = {"utils", "util", "helpers", "helper", "manager", "common", "misc"}
    assert [str(path) for path in SOURCES if {path.stem, *path.relative_to(ROOT).parts} & empty] == []


def _run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_importing_driftline_is_light() -> None:
    loaded = _run("import sys; before = set(sys.modules); import driftline; print(*sorted(set(sys.modules) - before))").split()
    assert [name for name in loaded if name.split(".")[0] not in {"driftline", "__future__"}] == []


def test_the_front_door_imports_nothing_heavy() -> None:
    loaded = set(_run("import sys; import driftline.cli.main; print(*{name.split('.')[0] for name in sys.modules})").split())
    assert loaded & {"confluent_kafka", "faust", "numba", "numpy", "pyarrow", "pydantic", "redis", "rich", "river", "scipy"} == set()


def test_importing_any_module_opens_no_connection_starts_no_process_and_no_thread() -> None:
    modules = [_module(path) for path in SOURCES if path.stem != "__main__"]
    code = f"""
import importlib, json, os, sys, threading
import faust.app   # before the watch: croniter, which Faust imports, asks the program `file` about this interpreter
seen = []
def watch(event, arguments):
    if event in ("socket.connect", "socket.bind", "subprocess.Popen", "os.system", "os.fork", "os.exec"):
        seen.append([current, event])
current = ""
environment = dict(os.environ)
sys.addaudithook(watch)
for current in {modules!r}:
    importlib.import_module(current)
    if threading.active_count() > 1:
        seen.append([current, "thread"])
        break
if dict(os.environ) != environment:
    seen.append(["?", "os.environ changed"])
print(json.dumps(seen))
"""
    assert json.loads(_run(code)) == []


@pytest.mark.parametrize("name", PARTS)
def test_the_links_at_the_top_lead_into_the_package(name: str) -> None:
    link = ROOT / name
    if not link.is_symlink():
        # A checkout without links has files that hold their targets; the package works all the same.
        assert link.read_text().strip() == f"driftline/{name}"
        return
    assert os.readlink(link) == f"driftline/{name}"
    assert (link / "__init__.py").exists()


@dataclass(frozen=True, slots=True)
class Built:
    """The folders of the built files and of the source they were built from."""

    out: Path
    source: Path

    def package_files(self) -> set[str]:
        """Every module and data file: all that git has in the package must be in the wheel."""
        files = (self.source / "driftline").rglob("*")
        return {str(path.relative_to(self.source)) for path in files if path.is_file()}


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Wheel and sdist, built from a copy that holds what git would have: no caches, no build leftovers."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    for name in subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0"):
        if name and (ROOT / name).exists():
            target = source / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / name).is_symlink():
                target.symlink_to(os.readlink(ROOT / name))
            else:
                target.write_bytes((ROOT / name).read_bytes())
    done = subprocess.run([sys.executable, "-m", "build", "--outdir", str(out), str(source)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return Built(out, source)


def test_the_wheel_holds_the_package_with_its_data_and_nothing_else(built: Built) -> None:
    [wheel] = built.out.glob("*.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names == built.package_files()


def test_the_sdist_holds_what_a_build_needs(built: Built) -> None:
    [sdist] = built.out.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    assert built.package_files() <= names
    assert {"pyproject.toml", "README.md", "LICENSE"} <= names


@pytest.fixture(scope="session")
def installed(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A python that has the wheel; the dependencies are those of this environment, seen through a path file."""
    home = tmp_path_factory.mktemp("installed")
    venv.create(home, with_pip=False, symlinks=True)
    python = home / "bin" / "python"
    [site] = (home / "lib").glob("python*/site-packages")
    [wheel] = built.out.glob("*.whl")
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-deps", str(wheel)],
        check=True, capture_output=True, env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
    )  # fmt: skip
    here = next(Path(path) for path in sys.path if path.endswith("site-packages") and Path(path).is_dir())
    # Only the packages: .pth files there (an editable driftline among them) are not followed from a path file.
    (site / "dependencies.pth").write_text(f"{here}\n")
    return python


def test_the_installed_wheel_works_away_from_the_checkout(installed: Path, tmp_path: Path) -> None:
    version = subprocess.run([installed.parent / "driftline", "--version"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert version.stdout.split()[-1] == _run("import driftline; print(driftline.__version__)").strip()


def test_the_installed_wheel_finds_its_data_files(installed: Path, tmp_path: Path) -> None:
    code = (
        "import driftline, pathlib, driftline.streams.local.jars as jars\n"
        "home = pathlib.Path(driftline.__file__).parent\n"
        "assert (home / 'py.typed').exists()\n"
        "assert list(home.rglob('*.lua'))\n"
        "assert jars.kafka_version()[0] == '4'\n"
        "assert jars.LOGGING.exists()\n"
        "print(home)"
    )
    where = subprocess.run([installed, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True).stdout.strip()
    assert not Path(where).is_relative_to(ROOT), "the checkout was imported instead of the wheel"


def test_only_who_compiles_loads_the_compiler() -> None:
    """numba is half a second and 70 MB: for detect and for ingest with a scanner, not for the join or a command."""
    code = "import sys, driftline.cli.worker, driftline.streams.wiring, driftline.streams.join; sys.exit('numba' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
