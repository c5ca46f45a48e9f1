"""``python -m spf_lite.cli``, for launchers.

Two processes share the batches of a run, on two cards or on none::

    accelerate launch --multi_gpu --num_processes 2 -m spf_lite.cli train CUSTOM_SET OUTPUT --model tiny --method spf

``--cpu`` in the place of ``--multi_gpu`` starts one process only.
"""

import sys

from spf_lite.cli import main

sys.exit(main())
