"""``manage.py test`` runs pytest, as pytest-django's documentation describes it."""

import os
from pathlib import Path


class PytestTestRunner:
    """Translate the options of ``manage.py test`` and call pytest."""

    def __init__(
        self,
        verbosity=1,
        failfast=False,
        keepdb=False,
        keyword=None,
        parallel=0,
        **kwargs,
    ):
        self.verbosity = verbosity
        self.failfast = failfast
        self.keepdb = keepdb
        self.keyword = keyword
        self.parallel = parallel

    @classmethod
    def add_arguments(cls, parser):
        """Add the options beside Django's own."""
        parser.add_argument(
            "--keepdb", action="store_true", help="Keep the test database."
        )
        parser.add_argument(
            "-k", dest="keyword", help="Run the tests that match this expression."
        )
        parser.add_argument(
            "--parallel",
            nargs="?",
            type=as_processes,
            const="auto",
            default=0,
            metavar="N",
            help="Run in N processes; without N in one more than there are cores.",
        )

    def run_tests(self, test_labels, **kwargs):
        """Run pytest on files, directories, node ids or dotted modules.

        Return its exit code, which Django takes for the number of failures.
        """
        import pytest

        return int(pytest.main(self.options() + [as_path(x) for x in test_labels]))

    def options(self):
        """Return pytest's options for the ones given to ``manage.py test``."""
        options = {0: ["--quiet"], 2: ["--verbose"], 3: ["-vv"]}.get(self.verbosity, [])
        if self.failfast:
            options = [*options, "--exitfirst"]
        if self.keepdb:
            options = [*options, "--reuse-db"]
        if self.keyword:
            options = [*options, "-k", self.keyword]
        if self.parallel:
            # Many tests only wait for servers: whoever is free takes what is left.
            options = [*options, f"--numprocesses={self.parallel}", "--dist=worksteal"]
        return options


def as_processes(value):
    """Return how many processes are meant; "auto" is one more than there are cores."""
    return (os.cpu_count() or 1) + 1 if value == "auto" else int(value)


def as_path(label):
    """Return the path of a dotted module; anything else as it is.

    >>> as_path("tests.unit")
    'tests/unit'
    """
    path = Path(*label.split("."))
    for candidate in (path, path.with_suffix(".py")):
        if not Path(label).exists() and candidate.exists():
            return str(candidate)
    return label
