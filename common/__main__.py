"""`python -m common run domain=medical`: the command line without `just`."""

import sys

from common.cli.main import module_main

if __name__ == "__main__":
    sys.exit(module_main())
