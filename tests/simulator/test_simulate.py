"""The simulator: it converges, it repeats itself, and it can say no."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from controlplane.cli.simulate import command
from controlplane.domain.catalogue import parse_catalogue
from controlplane.domain.errors import Invalid
from controlplane.localcloud.servers.postgres import PostgresServer
from controlplane.localcloud.simulator.customers import generate
from controlplane.localcloud.simulator.schedule import NONE, Trouble, schedule
from controlplane.localcloud.simulator.stream import dump, last_objects, load
from controlplane.workers.jobs import comparison

ROOT = Path(__file__).parents[2]
CATALOGUE = parse_catalogue((ROOT / "controlplane/plans.toml").read_text(), source="plans.toml")
SMALL = ("--tenants", "8", "--events", "60", "--crash", "0.02", "--drop", "0.1", "--json")


@pytest.fixture
def simulate(empty_database_url: str) -> Callable[..., Result]:
    """Run the command on this test's database."""
    return lambda *args: CliRunner().invoke(command, [*args, "--registry", empty_database_url])


def test_a_small_stream_with_every_trouble_converges(simulate: Callable[..., Result]) -> None:
    done = simulate(*SMALL, "--seed", "7")
    reported = json.loads(done.stdout)
    assert reported["differences"] == []
    assert done.exit_code == 0
    assert reported["converged"]
    assert reported["events"] == 60
    assert min(reported["doubled"], reported["late"], reported["dropped"], len(reported["crashes"])) > 0


def test_the_same_seed_is_the_same_run(
    simulate: Callable[..., Result], postgres_server: PostgresServer
) -> None:
    first = json.loads(simulate(*SMALL, "--seed", "11").stdout)
    url = postgres_server.create_database("simulate_again")
    second = json.loads(CliRunner().invoke(command, [*SMALL, "--seed", "11", "--registry", url]).stdout)
    postgres_server.drop_database("simulate_again")
    for reported in (first, second):
        del reported["seconds"]
    assert first == second
    assert len(first["crashes"]) > 0


def test_a_recording_is_replayed(simulate: Callable[..., Result], tmp_path: Path) -> None:
    recording = tmp_path / "stream.jsonl"
    made = generate(CATALOGUE, tenants=3, events=12, seed=1, livemode=False)
    dump(made, recording)
    read = load(recording)
    assert [moment.event for moment in read if moment.event] == [moment.event for moment in made]
    assert last_objects(read) == last_objects(made)
    done = simulate("--stream", str(recording), "--seed", "1", "--json")
    assert json.loads(done.stdout)["events"] == 12
    assert done.exit_code == 0


def test_events_alone_carry_their_objects(tmp_path: Path) -> None:
    """What `stripe events list` gives, one a line."""
    made = generate(CATALOGUE, tenants=2, events=30, seed=3, livemode=False)
    reported = [m.event for m in made if m.event and m.event["type"].startswith("customer.subscription.")]
    recording = tmp_path / "events.jsonl"
    recording.write_text("".join(json.dumps(event) + "\n" for event in reported))
    for moment, event in zip(load(recording), reported, strict=True):
        assert moment.objects == (event["data"]["object"],)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "line 1: expected a JSON object"),
        ("[]", "line 1: object: expected one of event"),
        ('{"object": "invoice"}', "line 1: object: expected one of event"),
        ('{"object": "event", "id": "evt_1", "type": "x", "data": {}}', "line 1: created: expected int"),
        ('{"object": "customer", "id": "cus_1"}', "at least one event"),
    ],
)
def test_a_recording_that_can_not_be_read_says_where(tmp_path: Path, line: str, words: str) -> None:
    recording = tmp_path / "stream.jsonl"
    recording.write_text(line + "\n")
    with pytest.raises(Invalid, match=words):
        load(recording)


def test_a_recording_in_which_the_dead_rise_is_refused(tmp_path: Path) -> None:
    """As one that is the wrong way round, which is how `stripe events list` prints."""
    moments = generate(CATALOGUE, tenants=3, events=200, seed=5, livemode=False)
    recording = tmp_path / "stream.jsonl"
    dump(moments, recording)
    load(recording)
    dump(reversed(moments), recording)
    with pytest.raises(Invalid, match="canceled, which is for ever; the oldest comes first"):
        load(recording)


def test_a_control_plane_that_loses_events_is_found_out(
    simulate: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the comparison with Stripe, what was never delivered stays unknown."""
    monkeypatch.setattr(comparison, "compare", lambda _ctx: comparison.Compared(0, 0))
    lossy = ("--seed", "2", "--drop", "0.5", "--crash", "0", "--json")
    done = simulate("--tenants", "6", "--events", "12", *lossy)
    reported = json.loads(done.stdout)
    assert done.exit_code == 1
    assert not reported["converged"]
    assert any("dropped" in event for found in reported["differences"] for event in found["events"])


def test_a_database_in_use_is_not_touched(simulate: Callable[..., Result]) -> None:
    assert simulate(*SMALL, "--seed", "1").exit_code == 0
    again = simulate(*SMALL, "--seed", "1")
    assert again.exit_code == 2
    assert "expected an empty database" in again.output


def test_a_schedule_loses_nothing_it_does_not_name() -> None:
    made = generate(CATALOGUE, tenants=20, events=400, seed=4, livemode=False)
    ids = [moment.event["id"] for moment in made if moment.event]
    plain = schedule(made, NONE, random.Random(1))
    assert [event["id"] for _, event in plain.deliveries] == ids
    troubled = schedule(made, Trouble(), random.Random(1))
    delivered = [event["id"] for _, event in troubled.deliveries]
    assert set(delivered) == set(ids) - troubled.dropped
    assert len(delivered) == len(set(delivered)) + len(troubled.doubled)
    assert delivered != sorted(delivered)
    assert all(at >= ids.index(event["id"]) for at, event in troubled.deliveries)
