"""``python -m negbench``."""

from __future__ import annotations

from negbench.cli import main

if __name__ == "__main__":
    main()
