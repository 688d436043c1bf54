import sys

from distill_lightning.cli import main

sys.exit(main())
