"""python -m experiments COMMAND --FLAG VALUE …"""

from __future__ import annotations

import os
import sys


def main() -> int:
    from experiments.process import keep_freed_memory, share_cores

    share_cores()  # before torch is imported
    keep_freed_memory()
    from experiments.cli import main as run

    return run()


if __name__ == "__main__":
    status = main()
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        # now and then torch's part of such a process aborts while the interpreter is taken down, its work done
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)
