"""What is written about the commands names all of them, and nothing else."""

import argparse
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from srpnode.cli import parser
from tests.app.node import Node
from tests.node import node as program
from tests.node import reference_dir

ROOT = Path(__file__).parents[2]


def commands() -> dict[str, argparse.ArgumentParser]:
    for action in parser()._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    raise AssertionError("no commands")


def long_options(made: argparse.ArgumentParser) -> set[str]:
    return {option for action in made._actions for option in action.option_strings if option.startswith("--")}


def test_the_man_page_names_every_command_and_option() -> None:
    page = (ROOT / "docs/man/srpnode.8").read_text().replace("\\-", "-").replace("\\ ", " ")
    section = page.partition(".SH COMMANDS")[2].partition(".SH OPTIONS")[0]
    named = set(re.findall(r"^\.TP\n\.BI? ([a-z]+)\b", section, flags=re.M))
    assert named == set(commands())
    for made in commands().values():
        for option in long_options(made) - {"--help"}:
            assert option in page or f"-{option[2]}" in page, option


def test_the_completion_knows_every_command() -> None:
    if shutil.which("bash") is None:
        pytest.skip("no bash")
    script = ROOT / "packaging/debian/completions/srpnode"
    ask = f"""
        _init_completion() {{ current=${{COMP_WORDS[COMP_CWORD]}}; previous=${{COMP_WORDS[COMP_CWORD - 1]}}
            words=("${{COMP_WORDS[@]}}"); cword=$COMP_CWORD; }}
        source {script}
        complete_line() {{ COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
            _srpnode; echo "${{COMPREPLY[@]}}"; }}
    """

    def completed(*words: str) -> set[str]:
        line = ask + "complete_line " + " ".join(f"'{word}'" for word in words)
        done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return set(done.stdout.split())

    assert completed("srpnode", "") == {*commands(), "--help", "--version"}
    assert completed("srpnode", "un") == {"unblock"}
    for name, made in commands().items():
        assert completed("srpnode", name, "--") == long_options(made), name


def test_the_readme_names_real_commands() -> None:
    text = (ROOT / "README.md").read_text()
    for word in re.findall(r"(?:bin/)?srpnode ([a-z]+)\b", text):
        assert word in {*commands(), "for", "is", "holds"}, word


@pytest.mark.parametrize("page", sorted(path.name for path in (ROOT / "docs/man").iterdir()))
def test_man_pages_are_well_formed(page: str) -> None:
    other = re.fullmatch(r"\.so man\d/(\S+)\n", (ROOT / "docs/man" / page).read_text())
    if other:  # two commands on one page
        assert (ROOT / "docs/man" / other[1]).exists()
        return
    if shutil.which("groff") is None:
        pytest.skip("no groff")
    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww", "-z", str(ROOT / "docs/man" / page)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_reference_peer_becomes_ready_as_the_readme_says(node: Node) -> None:
    words = "srpnode info --json | .venv/bin/node tests/reference/ready.mjs"
    assert words in (ROOT / "README.md").read_text()
    entries = json.dumps(node.ask("info"))
    command = [program(), str(reference_dir() / "ready.mjs")]
    done = subprocess.run(command, input=entries, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"ready: the nodes see us at 127\.0\.0\.1:\d+, NAT type 31\n", done.stdout)
