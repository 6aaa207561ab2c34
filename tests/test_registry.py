"""Registries: built-ins, local files, installed packages; collisions, misses and broken parts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from negbench.errors import PluginError, UnknownNameError
from negbench.methods import Method, methods
from negbench.registry import Registry, load_plugin_file
from negbench.types import Case

PACKAGE = Path(__file__).parent / "plugin_package"
SOUND = """
from negbench.methods import methods, Method

@methods.register({name!r})
class Shout(Method):
    "Say the prompt's first word."
    def treat(self, cases, *, seed):
        return [case.prompt.split()[0] for case in cases]
"""


def fresh():
    """The registry of methods as a new process has it."""
    return Registry(
        "method",
        group="negbench.methods",
        base="negbench.methods.base:Method",
        builtins={
            "none": ("negbench.methods.none:NoNegative", "no negative prompt"),
            "static": ("negbench.methods.static:Static", "one list"),
            "gone": ("negbench.methods.no_such_module:Gone", "cannot be imported"),
            "odd": ("negbench.types:Case", "is no method"),
        },
    )


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Install entry points by writing a dist-info, as pip would."""
    monkeypatch.delenv("NEGBENCH_PLUGINS")
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(package, points, code=""):
        info = tmp_path / f"{package}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        lines = "\n".join(f"{name} = {target}" for name, target in points.items())
        (info / "entry_points.txt").write_text(f"[negbench.methods]\n{lines}\n")
        if code:
            (tmp_path / f"{package}.py").write_text(code)
        return fresh()

    yield write
    for name in [name for name in sys.modules if name.startswith("plug_")]:
        del sys.modules[name]


CODE = """
from negbench.methods import Method

class Whisper(Method):
    def treat(self, cases, *, seed):
        return ["" for case in cases]
"""


def test_listing_imports_nothing():
    code = (
        "import sys; from negbench.methods import methods; print(methods.names());"
        "heavy = {'torch', 'transformers', 'diffusers', 'scipy', 'polars', 'datasets'};"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules);"
        "assert 'negbench.methods.negopt' not in sys.modules"
    )
    env = {**os.environ, "NEGBENCH_PLUGINS": ""}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=env, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "negopt" in done.stdout


def test_every_built_in_loads():
    for entry in methods.entries():
        assert issubclass(methods.get(entry.name), Method)
        assert entry.summary


def test_installed_method_is_listed_and_loaded(installed):
    registry = installed("plug_quiet", {"whisper": "plug_quiet:Whisper"}, CODE)
    assert "whisper" in registry.names()
    assert "plug_quiet" not in sys.modules
    treated = registry.get("whisper")().treat([Case(id="1", prompt="a cat")], seed=0)
    assert treated == [""]
    (entry,) = [e for e in registry.entries() if e.name == "whisper"]
    assert "package plug_quiet" in entry.origin


def test_empty_variable_turns_installed_methods_off(installed, monkeypatch):
    installed("plug_quiet", {"whisper": "plug_quiet:Whisper"}, CODE)
    monkeypatch.setenv("NEGBENCH_PLUGINS", "")
    assert "whisper" not in fresh()


def test_collision_names_both_origins(installed):
    registry = installed("plug_taken", {"static": "plug_taken:Whisper"}, CODE)
    with pytest.raises(PluginError, match="defined twice") as failure:
        registry.names()
    assert "negbench.methods.static:Static" in str(failure.value)
    assert "package plug_taken" in str(failure.value)
    assert "NEGBENCH_PLUGINS" in str(failure.value)


def test_two_packages_with_one_name(installed):
    installed("plug_one", {"same": "plug_one:Whisper"}, CODE)
    registry = installed("plug_two", {"same": "plug_two:Whisper"}, CODE)
    with pytest.raises(PluginError, match=r"plug_one.*plug_two|plug_two.*plug_one"):
        registry.names()


def test_a_broken_plugin_breaks_only_itself(installed):
    registry = installed(
        "plug_broken",
        {"torn": "plug_broken:Whisper", "absent": "plug_nowhere:X", "hollow": "plug_broken2:X"},
        "raise RuntimeError('no\\nluck')",
    )
    assert issubclass(registry.get("none"), Method)
    with pytest.raises(
        PluginError, match=r"'torn' from package plug_broken .*RuntimeError: no luck"
    ):
        registry.get("torn")
    with pytest.raises(PluginError, match="ModuleNotFoundError"):
        registry.get("absent")
    with pytest.raises(PluginError, match="cannot be imported"):
        registry.get("gone")
    with pytest.raises(PluginError, match="not a subclass"):
        registry.get("odd")


def test_a_miss_says_did_you_mean():
    with pytest.raises(UnknownNameError, match="unknown method 'statik'; did you mean static"):
        fresh().get("statik")
    with pytest.raises(UnknownNameError, match="negbench list methods"):
        fresh().get("zzz")


def test_plugin_file(tmp_path, monkeypatch):
    monkeypatch.setattr(methods, "_local", {})
    file = tmp_path / "shout.py"
    file.write_text(SOUND.format(name="shout"))
    load_plugin_file(file)
    assert methods.get("shout")().treat([Case(id="1", prompt="a cat")], seed=0) == ["a"]
    load_plugin_file(file)  # the same file again is no collision
    again = tmp_path / "again.py"
    again.write_text(SOUND.format(name="shout"))
    with pytest.raises(PluginError, match="defined twice") as failure:
        load_plugin_file(again)
    assert str(file) in str(failure.value)
    taken = tmp_path / "taken.py"
    taken.write_text(SOUND.format(name="static"))
    with pytest.raises(PluginError, match="defined twice"):
        load_plugin_file(taken)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("x = 1\n1 / 0\n", "line 2: ZeroDivisionError"),
        ("import no_such_thing_at_all\n", "no_such_thing_at_all"),
        ("def broken(:\n", "SyntaxError"),
        ("raise SystemExit(0)\n", "line 1: SystemExit"),
    ],
)
def test_plugin_file_that_fails(tmp_path, content, said):
    file = tmp_path / "bad.py"
    file.write_text(content)
    with pytest.raises(PluginError, match=said):
        load_plugin_file(file)


def test_plugin_file_that_is_not_there(tmp_path):
    with pytest.raises(PluginError, match="does not exist"):
        load_plugin_file(tmp_path / "none.py")
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(PluginError, match="not Python"):
        load_plugin_file(tmp_path / "notes.txt")


def test_the_example_packages_source_fulfils_the_contract(monkeypatch):
    from negbench.methods.check import treat_checked

    monkeypatch.syspath_prepend(str(PACKAGE / "src"))
    from negbench_example.opposites import Opposites

    method = Opposites(Opposites.Config(strength=2))
    cases = [Case(id="1", prompt="an old house at night"), Case(id="2", prompt="a cat")]
    treated = treat_checked(method, "opposites", cases, seed=0)
    assert treated[0].negative_text() == "new, day"
    assert treated[0].negatives[0].weight == 2.0
    assert treated[1].negatives == ()
    sys.modules.pop("negbench_example.opposites")
    sys.modules.pop("negbench_example")


@pytest.mark.slow
def test_the_example_package_installs(tmp_path):
    """Built and installed by pip into a folder of its own, found by its entry point."""
    target = tmp_path / "site"
    installers = (
        ["uv", "pip", "install", "--python", sys.executable],
        [sys.executable, "-m", "pip", "install"],
    )
    for command in installers:
        try:
            done = subprocess.run(
                [*command, "--no-deps", "--target", str(target), str(PACKAGE)],
                capture_output=True,
                text=True,
                check=False,
            )
        except FileNotFoundError:
            continue
        if done.returncode == 0:
            break
    else:
        pytest.skip("no installer, or no registry to get hatchling from")
    env = {k: v for k, v in os.environ.items() if k != "NEGBENCH_PLUGINS"}
    code = (
        "from negbench.methods import methods; assert 'opposites' in methods.names();"
        "print(methods.get('opposites').Config().strength)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**env, "PYTHONPATH": f"{target}{os.pathsep}{Path.cwd()}"},
    )
    assert done.stdout.strip() == "1.0"
