"""``python -m spf_lite.cli``, for launchers such as ``accelerate launch`` and ``torchrun``."""

import sys

from spf_lite.cli import main

sys.exit(main())
