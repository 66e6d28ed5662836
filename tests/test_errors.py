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


@pytest.mark.parametrize("name", ["r3d_18", "R3D-18", "r3d18"])
def test_a_name_of_another_program_is_found_inside_ours(name):
    known = ["r3d18-k", "r3d18-km", "tv-r3d18-kinetics", "tv-mc318-kinetics", "r3d152-k"]
    message = str(UnknownNameError("backbone", name, known))
    assert message.endswith("did you mean 'r3d18-k' or 'r3d18-km' or 'tv-r3d18-kinetics'?")


def test_of_many_names_none_of_which_is_near_a_few_are_listed():
    message = str(UnknownNameError("class", "zzz", [f"class {i:03d}" for i in range(487)], "See X."))
    assert message.endswith(
        "known: class 000, class 001, class 002, class 003, class 004, class 005, … (487 in all). See X."
    )


def test_a_usage_error_is_also_a_value_error():
    assert issubclass(UsageError, ValueError) and issubclass(UsageError, FeatxError)
