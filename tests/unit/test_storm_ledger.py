"""What the storm's oracle makes of the logs of signals."""

import json

from tests.storm.ledger import Ledger


def test_the_end_of_a_group_may_be_still_to_come(tmp_path):
    """Its last leave and its end are two signals; of the dead only one may come."""
    path = tmp_path / "events.jsonl"
    ledger = Ledger([path])
    last = {"group": "room", "revision": 2, "pid": 1}
    log(path, {**last, "revision": 1, "event": "join", "id": "a", "count": 1})
    log(path, {**last, "event": "leave", "id": "a", "count": 0})
    ledger.read()
    assert ledger.half_told(set()) == {"room"}
    assert ledger.half_told({1}) == set()
    log(path, {**last, "event": "destroyed"})
    ledger.read()
    assert ledger.half_told(set()) == set()


def log(path, event):
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(event) + "\n")
