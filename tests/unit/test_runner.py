"""``manage.py test`` hands everything to pytest."""

import argparse
import os

import pytest

from testproject.runner import PytestTestRunner


@pytest.fixture
def called(monkeypatch):
    """What pytest would have been called with."""
    calls = []
    monkeypatch.setattr(pytest, "main", lambda args: calls.append(args) or 5)
    return calls


def test_the_options(called):
    runner = PytestTestRunner(verbosity=2, failfast=True, keepdb=True, keyword="a or b")
    assert runner.run_tests(["tests/unit"]) == 5
    assert called == [
        ["--verbose", "--exitfirst", "--reuse-db", "-k", "a or b", "tests/unit"]
    ]


@pytest.mark.parametrize(
    "verbosity, options", [(0, ["--quiet"]), (1, []), (3, ["-vv"])]
)
def test_verbosity(called, verbosity, options):
    PytestTestRunner(verbosity=verbosity, interactive=False).run_tests([])
    assert called == [options]


@pytest.mark.parametrize(
    "arguments, processes", [(["--parallel", "3"], 3), (["--parallel"], 9), ([], None)]
)
def test_parallel(called, monkeypatch, arguments, processes):
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    parser = argparse.ArgumentParser()
    PytestTestRunner.add_arguments(parser)
    PytestTestRunner(**vars(parser.parse_args(arguments))).run_tests([])
    options = [f"--numprocesses={processes}", "--dist=worksteal"] if processes else []
    assert called == [options]


@pytest.mark.parametrize(
    "label, path",
    [
        ("tests.unit", "tests/unit"),
        ("tests.unit.test_runner", "tests/unit/test_runner.py"),
        ("tests/unit/test_runner.py", "tests/unit/test_runner.py"),
        ("tests/unit/test_runner.py::test_labels", None),
        ("no.such.thing", None),
    ],
)
def test_labels(called, label, path):
    PytestTestRunner().run_tests([label])
    assert called == [[path or label]]
