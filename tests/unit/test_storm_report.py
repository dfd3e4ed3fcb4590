"""What several storms found, in one table."""

from tests.storm.report import load, save, table
from tests.storm.rounds import Result


def test_storms_add_up(tmp_path):
    one, two = tmp_path / "core", tmp_path / "pubsub"
    save(one, 1, "core", [Result("kill", n, True, settled=n / 10) for n in range(10)])
    save(one, 1, "core", [Result("calm", 10, False, excused={"leaves": 3})])
    save(two, 2, "pubsub", [Result("kill", 0, False, settled=2, violations=["no"])])
    assert list(table(load([str(one), str(two)]))) == [
        "| fault | times | median | p90 | worst |",
        "| --- | --- | --- | --- | --- |",
        "| calm | 1 | nan | nan | nan |",
        "| kill | 11 | 0.5 | 0.9 | 2.0 |",
        "| all | 12 | 0.5 | 0.9 | 2.0 |",
        "violations: kill 1",
        "excused: signals that died with a process that was killed amid traffic:"
        " leaves 3",
    ]
