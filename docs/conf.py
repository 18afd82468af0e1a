"""The documentation as a site: `make docs`. Its pages load nothing from elsewhere."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx

ROOT = Path(__file__).parents[1]
HEADERS = ROOT / "build" / "docs" / "headers"

project = "DHP"
copyright = "the authors of DHP, Apache-2.0"
release = importlib.metadata.version("dhp")
extensions = ["myst_parser", "sphinx.ext.autodoc", "breathe"]
html_theme = "furo"
html_title = f"DHP {release}"
myst_heading_anchors = 4
suppress_warnings = [
    "misc.highlighting_failure",  # console blocks whose commands go over several lines
    "duplicate_declaration.cpp",  # namespace dhp, header by header
]
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "description"
breathe_projects = {"dhp": str(HEADERS / "xml")}
breathe_default_project = "dhp"
breathe_default_members = ("members",)


class CommandHelp(Directive):
    """What `dhp COMMAND --help` prints: `{command-help} plan`."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        command = ["dhp", self.arguments[0], "--help"]
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=120, env=os.environ | {"COLUMNS": "100"}
        )
        return [nodes.literal_block(done.stdout, done.stdout, language="text")]


def read_docstring(app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]) -> None:
    """Columns of our docstrings, a name and what it is, become fields; indented lines become code."""
    read: list[str] = []
    for line in lines:
        if column := re.fullmatch(r"(\w[\w, ]*?) {2,}(\S.*)", line):
            read.append(f":{column[1]}: {column[2]}")
        elif line.startswith("    ") and read and not read[-1].startswith((":", " ")):
            before = next((i for i in range(len(read) - 1, -1, -1) if read[i]), 0)
            read[before:] = (
                [re.sub(":$", "::", read[before]), "", line] if read[before].endswith(":") else ["::", "", line]
            )
        else:
            read.append(line)
    lines[:] = read


def read_signature(
    app: Sphinx, what: str, name: str, thing: object, options: object, signature: str | None, result: str | None
) -> tuple[str | None, str | None]:
    """Types by their public names."""
    public = [text and text.replace("dhp._core.", "").replace("collections.abc.", "") for text in (signature, result)]
    return public[0], public[1]


def read_headers(app: Sphinx) -> None:
    """Doxygen reads include/dhp into XML, from which breathe makes the C++ reference."""
    HEADERS.mkdir(parents=True, exist_ok=True)
    settings = {
        "INPUT": ROOT / "include",
        "RECURSIVE": "YES",
        "OUTPUT_DIRECTORY": HEADERS,
        "GENERATE_XML": "YES",
        "GENERATE_HTML": "NO",
        "GENERATE_LATEX": "NO",
        "EXTRACT_ALL": "YES",
        "STRIP_FROM_PATH": ROOT / "include",
        "QUIET": "YES",
        "WARN_IF_UNDOCUMENTED": "NO",
    }
    text = "".join(f"{name} = {value}\n" for name, value in settings.items())
    subprocess.run(["doxygen", "-"], input=text, text=True, check=True, timeout=300)


def setup(app: Sphinx) -> None:
    app.add_directive("command-help", CommandHelp)
    app.connect("builder-inited", read_headers)
    app.connect("autodoc-process-docstring", read_docstring)
    app.connect("autodoc-process-signature", read_signature)
