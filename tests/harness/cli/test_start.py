"""A command starts without what it has no need of."""

import subprocess
import sys
from pathlib import Path

import pytest
import typer

from lockstep_bench.backends import registered
from lockstep_bench.harness.cli import COMMANDS, app
from support.command import lockstep

FRAMEWORKS = {module.partition(".")[0] for backend in registered().values() for module in backend.modules}
HEAVY = {*FRAMEWORKS, "matplotlib", "numpy", "pandas", "plotly", "pooch", "pydantic", "requests", "scipy"}


def imported_by(*arguments: str) -> set[str]:
    """The top-level modules that a command has imported at its end."""
    code = (
        f"import sys; sys.argv = ['lockstep', *{arguments!r}]\n"
        "from lockstep_bench.harness.cli import app; app(standalone_mode=False)\n"
        "print('\\n', *{name.partition('.')[0] for name in sys.modules})"
    )
    printed = subprocess.check_output([sys.executable, "-c", code], text=True)
    return set(printed.splitlines()[-1].split())


def test_help_imports_no_library_but_typer() -> None:
    """The list of commands is there before rich would be imported."""
    assert imported_by("--help") & {*HEAVY, "rich"} == set()


def test_backends_imports_no_library_but_rich() -> None:
    """They are listed by what their files say."""
    assert imported_by("backends") & HEAVY == set()


@pytest.mark.parametrize("name", COMMANDS)
def test_list_of_commands_says_what_the_command_says(name: str) -> None:
    """The summary is the first paragraph of its own help."""
    group = typer.main.get_command(app)
    context = group.make_context("lockstep", [name])
    found, command, _ = group.resolve_command(context, [name])  # type: ignore[attr-defined]
    assert found == name
    first, _, _ = command.help.partition("\n\n")
    assert COMMANDS[name].summary == " ".join(first.split())


def test_list_has_every_command_in_full(tmp_path: Path) -> None:
    """Each with its whole summary; without arguments it is shown too, and that is wrong usage."""
    asked = lockstep("--help", cwd=tmp_path)
    assert asked.returncode == 0
    text = " ".join(asked.stdout.split())
    assert all(f"{name} {place.summary}" in text for name, place in COMMANDS.items())
    nothing = lockstep(cwd=tmp_path)
    assert (nothing.returncode, nothing.stdout.strip()) == (2, asked.stdout.strip())


def test_mistyped_command_is_told_the_nearest(tmp_path: Path) -> None:
    """Though none is imported."""
    process = lockstep("reprot", cwd=tmp_path)
    assert process.returncode == 2
    assert "Did you mean 'report'?" in process.stderr
