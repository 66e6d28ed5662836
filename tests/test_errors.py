"""errors.py: messages name the value, the rule and the remedy."""

import pytest

from featx.errors import FeatxError, UnknownNameError, UsageError


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("res3d-mimi", "unknown backbone 'res3d-mimi'; did you mean 'res3d-mini' or 'res3d-sports1m'? See X."),
        ("cd3", "unknown backbone 'cd3'; did you mean 'c3d-sports1m'? See X."),
        ("inception", "unknown backbone 'inception'; known: c3d-sports1m, res3d-mini, res3d-sports1m. See X."),
    ],
)
def test_unknown_names_suggest_the_nearest(name, message):
    error = UnknownNameError("backbone", name, ["res3d-mini", "c3d-sports1m", "res3d-sports1m"], "See X.")
    assert str(error) == message


def test_a_usage_error_is_also_a_value_error():
    assert issubclass(UsageError, ValueError) and issubclass(UsageError, FeatxError)
