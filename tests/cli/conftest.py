import logging

import pytest


@pytest.fixture(autouse=True)
def logged(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What a command says."""
    caplog.set_level(logging.INFO)
    return caplog
