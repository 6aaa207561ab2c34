"""Commands run in the tests' own process, as a shell would run them."""

from __future__ import annotations

import sys

from negbench import cli


def run(capfd, *arguments):
    """Exit code, stdout and stderr of a command."""
    before = sys.argv
    sys.argv = ["negbench", *map(str, arguments)]
    try:
        cli.main()
        code = 0
    except SystemExit as stop:
        code = stop.code or 0
    finally:
        sys.argv = before
    out, err = capfd.readouterr()
    return code, out, err
