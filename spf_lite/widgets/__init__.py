"""Interactive views: each is one Python class and one ES module, alive in a notebook and on a static page alike."""

from spf_lite.widgets.before_after import BeforeAfter

__all__ = ["BeforeAfter"]
