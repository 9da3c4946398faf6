"""`scripts.lifecycle.connection`: what MLflow's client and others below it raise is one line."""

import pytest
from botocore.exceptions import NoCredentialsError

from scripts.lifecycle import LifecycleError, Overtaken
from scripts.lifecycle.connection import one_line


def test_the_error_of_an_artifact_store_is_one_line():
    """boto3's errors are nobody's subclasses, and a promotion that is done must not end with a traceback."""
    with (
        pytest.raises(LifecycleError, match=r"^the signature cannot be read: Unable to locate credentials$"),
        one_line("the signature cannot be read"),
    ):
        raise NoCredentialsError


def test_a_scripts_own_error_keeps_its_exit_code():
    with pytest.raises(Overtaken, match=r"^somebody was faster$"), one_line("it could not be moved"):
        raise Overtaken("somebody was faster")
