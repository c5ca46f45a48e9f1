"""Interactive views. Each is one Python class and one ES module, and works in a notebook and on a static page alike."""

from spf_lite.widgets.attention_explorer import AttentionExplorer
from spf_lite.widgets.before_after import BeforeAfter
from spf_lite.widgets.control_map_explorer import ControlMapExplorer
from spf_lite.widgets.drift_explorer import DriftExplorer
from spf_lite.widgets.memory_calculator import MemoryCalculator
from spf_lite.widgets.training_scrubber import TrainingScrubber
from spf_lite.widgets.weight_explorer import WeightExplorer

__all__ = [
    "AttentionExplorer",
    "BeforeAfter",
    "ControlMapExplorer",
    "DriftExplorer",
    "MemoryCalculator",
    "TrainingScrubber",
    "WeightExplorer",
]
