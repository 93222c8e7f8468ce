"""python -m experiments COMMAND --FLAG VALUE …"""

from __future__ import annotations

import sys


def main() -> int:
    from experiments.process import keep_freed_memory, share_cores

    share_cores()  # before torch is imported
    keep_freed_memory()
    from experiments.cli import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
