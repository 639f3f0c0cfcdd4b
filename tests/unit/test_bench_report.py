"""The benchmark's own arithmetic: a wrong figure, or a lost message that it does not see, would be believed."""

from __future__ import annotations

import dataclasses
import itertools
import resource
from pathlib import Path

import orjson
import pytest
from django.core.management import CommandError, call_command
from hypothesis import given
from hypothesis import strategies as st

from gateway.codecs.registry import get_codec
from imserver.conf import Config
from imserver.protocol.gen.sdkws_pb2 import MsgData
from imserver.protocol.push_event import PUSH_EVENT, pack
from tests.benchmarks import people, plots, table, wire
from tests.benchmarks import report as reports
from tests.benchmarks.cases import USUAL, Options, cases_of, pick_workloads
from tests.benchmarks.chats import Tally
from tests.benchmarks.counters import figures_of
from tests.benchmarks.node_events import Seen
from tests.benchmarks.plan import ChatPlan, Plan, UserPlan
from tests.benchmarks.report import Latency, Report, Run, Spread
from tests.benchmarks.workloads import WORKLOADS

RUN = Run(
    workload="w1b",
    title="one-to-one",
    rate=200.0,
    seconds=10.0,
    sent=2600,
    delivered=2000,
    latency=Latency(2000, 2.5, 10.0, 20.0, 1234.5),
    cpu_seconds={"gateway": 1.0, "worker": 3.0},
    generator_cpu_seconds=0.5,
    foreign_cpu_seconds=2.0,
    catch_up_seconds=0.25,
    catch_up_cpu_seconds=0.01,
    started_late_p99_ms=0.2,
    faults={"lost": 0, "doubled": 0},
)
REPORT = Report(
    taken_at="2026-01-02 03:04 UTC",
    commit="abc1234+",
    machine={"processors": 2, "model": "Some Processor", "memory_gib": 8.0, "python": "3.11.7", "load_before": 0.1},
    settings={"codec": "js", "gateway_server": "daphne", "lease_ms": 5000},
    idle_percent={"gateway": 0.5, "worker": 1.25},
    runs=[RUN],
)


# -- percentiles


def test_a_percentile_is_the_smallest_value_that_enough_values_do_not_exceed() -> None:
    ordered = [float(number) for number in range(1, 201)]

    assert [reports.percentile(ordered, percent) for percent in (50, 95, 99, 100)] == [100, 190, 198, 200]
    assert reports.percentile([7.0], 50) == reports.percentile([7.0], 99) == 7.0
    assert reports.percentile([], 50) == 0.0


@given(st.lists(st.floats(0, 1000), min_size=1), st.floats(0.1, 100))
def test_a_percentile_is_one_of_the_values_and_splits_them_as_promised(values: list[float], percent: float) -> None:
    ordered = sorted(values)

    found = reports.percentile(ordered, percent)

    assert found in ordered
    assert sum(value <= found for value in ordered) >= len(ordered) * percent / 100 - 1e-9


def test_latencies_are_sorted_and_told_in_milliseconds() -> None:
    assert reports.latency_of([0.002, 0.001, 0.01]) == Latency(3, 2.0, 10.0, 10.0, 10.0)
    assert reports.latency_of([]) == Latency(0, 0.0, 0.0, 0.0, 0.0)


# -- what arrived


def test_what_arrives_in_order_with_its_seq_is_faultless() -> None:
    tally = Tally()

    assert all(tally.note(number, number + 1) for number in range(5))

    assert (tally.distinct, tally.doubled, tally.disordered) == (5, 0, 0)


def test_a_message_that_comes_twice_is_counted_once_and_reported() -> None:
    tally = Tally()

    firsts = [tally.note(number, number + 1) for number in (0, 1, 1, 3, 3, 2, 0)]

    assert firsts == [True, True, False, True, False, True, False]
    assert (tally.distinct, tally.doubled) == (4, 3)


def test_a_message_that_comes_after_a_later_one_is_out_of_order() -> None:
    tally = Tally()

    for number in (0, 2, 1, 3):
        tally.note(number, number + 1)

    assert (tally.distinct, tally.doubled, tally.disordered) == (4, 0, 1)


def test_a_lost_message_leaves_the_count_short_and_puts_nothing_out_of_order() -> None:
    tally = Tally()

    for number in (0, 1, 3, 4):
        tally.note(number, number + 1)

    assert (tally.distinct, tally.doubled, tally.disordered) == (4, 0, 0)


def test_a_seq_that_does_not_follow_is_out_of_order_though_the_messages_are_in_order() -> None:
    tally = Tally()

    for number, seq in ((0, 1), (1, 3), (2, 4)):
        tally.note(number, seq)

    assert tally.disordered == 2


@given(st.permutations(range(7)))
def test_every_order_but_the_right_one_is_noticed(order: list[int]) -> None:
    tally = Tally()

    for number in order:
        tally.note(number, number + 1)

    assert tally.distinct == 7
    assert tally.doubled == 0
    assert bool(tally.disordered) == (order != sorted(order))


# -- frames


def server_frame(payload: bytes, opcode: int = wire.BINARY) -> bytes:
    """A client's frame without its mask."""
    frame = wire.client_frame(payload, opcode)
    head = len(frame) - len(payload) - len(wire.MASK)
    return bytes((frame[0], frame[1] & ~wire.MASKED)) + frame[2:head] + payload


@pytest.mark.parametrize("cut", [1, 2, 3, 7, 1000, 1 << 20])
def test_frames_are_found_however_the_network_cuts_them(cut: int) -> None:
    payloads = [b"", b"a" * 125, b"b" * 126, b"c" * 65_535, b"d" * 65_536]
    stream = b"".join(server_frame(payload) for payload in payloads) + server_frame(b"hello", wire.PING)
    reader = wire.FrameReader()

    pieces = (stream[start : start + cut] for start in range(0, len(stream), cut))
    frames = list(itertools.chain.from_iterable(reader.feed(piece) for piece in pieces))

    assert frames == [*((wire.BINARY, payload) for payload in payloads), (wire.PING, b"hello")]


def test_a_masked_or_partial_frame_of_the_server_is_refused() -> None:
    partial = server_frame(b"x")

    with pytest.raises(wire.WireError, match="masked"):
        wire.FrameReader().feed(wire.client_frame(b"x"))
    with pytest.raises(wire.WireError, match="several"):
        wire.FrameReader().feed(bytes((wire.BINARY,)) + partial[1:])


@pytest.mark.parametrize("codec", sorted(wire.DATA_ENCODERS))
@pytest.mark.parametrize("text_bytes", [9, 100, 3000])
def test_a_template_makes_the_frame_that_a_client_would_send(codec: str, text_bytes: int) -> None:
    template = wire.SendTemplate.build(codec, "alice", "bob", text_bytes)

    requests = []
    for number in (0, 7, 123_456_789):
        frame = template.frame(number)
        head = 2 + (2 if frame[1] & 127 == 126 else 0) + len(wire.MASK)
        assert frame == wire.client_frame(frame[head:])
        requests.append(get_codec(codec).decode_request(frame[head:]))

    msgs = [MsgData.FromString(request.data) for request in requests]
    assert [wire.number_of_msg(msg) for msg in msgs] == [0, 7, 123_456_789]
    assert [wire.number_of_answer(request.msg_incr) for request in requests] == [0, 7, 123_456_789]
    assert len({msg.clientMsgID for msg in msgs}) == len({request.operation_id for request in requests}) == 3
    assert {(msg.sendID, msg.recvID, len(msg.clientMsgID)) for msg in msgs} == {("alice", "bob", 32)}
    assert {len(orjson.loads(msg.content)["content"]) for msg in msgs} == {text_bytes}


@pytest.mark.parametrize("codec", sorted(wire.DATA_ENCODERS))
def test_a_template_for_another_receiver_differs_in_receiver_and_ids_only(codec: str) -> None:
    template = wire.SendTemplate.build(codec, "user1", "user2", 50)

    other = template.to("user3")

    frame = other.frame(5)
    request = get_codec(codec).decode_request(frame[2 + (2 if frame[1] & 127 == 126 else 0) + len(wire.MASK) :])
    msg = MsgData.FromString(request.data)
    assert (msg.sendID, msg.recvID, msg.senderNickname) == ("user1", "user3", "user1")
    assert request.msg_incr == msg.clientMsgID == f"{other.unique}000000005"
    assert other.unique != template.unique
    with pytest.raises(ValueError, match="as long"):
        template.to("user10")


def test_a_template_for_a_group_names_the_group() -> None:
    frame = wire.SendTemplate.build("go", "alice", "g1", 20, is_group=True).frame(0)

    request = get_codec("go").decode_request(frame[2 + (2 if frame[1] & 127 == 126 else 0) + len(wire.MASK) :])
    msg = MsgData.FromString(request.data)
    assert (msg.groupID, msg.recvID, msg.sessionType) == ("g1", "", 3)


def test_the_plan_reaches_the_generator_as_it_was_made() -> None:
    plan = Plan(
        "w2a", ["ws://a", "ws://b"], "js", [UserPlan("u", "t", 1)], [ChatPlan(0, [1, 2], "g", 3)], 1, 0.5, 4, 0, 99
    )

    assert Plan.from_json(plan.to_json()) == plan


def test_two_templates_of_the_same_users_never_repeat_a_client_msg_id() -> None:
    first, second = (wire.SendTemplate.build("go", "alice", "bob", 20) for _ in range(2))

    assert first.frame(1) != second.frame(1)


# -- figures


def test_processes_of_a_kind_are_added_up_in_the_order_of_the_columns() -> None:
    figures = {"mongod": 1.0, "worker1": 2.0, "gateway0": 3.0, "worker0": 4.0, "other": 5.0}

    assert list(reports.by_kind(figures).items()) == [
        ("gateway", 3.0),
        ("worker", 6.0),
        ("mongod", 1.0),
        ("other", 5.0),
    ]


def test_cpu_is_divided_by_the_messages_of_the_measured_time() -> None:
    assert RUN.delivered_per_second == 200.0
    assert RUN.cpu_ms_per_msg == {"gateway": 0.5, "worker": 1.5}
    assert RUN.server_cpu_ms_per_msg == 2.0
    assert RUN.generator_cpu_ms_per_msg == 0.25


def test_a_run_without_messages_divides_by_nothing_and_is_no_success() -> None:
    run = dataclasses.replace(RUN, sent=0, delivered=0, seconds=0.0)

    assert run.delivered_per_second == 0.0
    assert run.cpu_ms_per_msg["gateway"] == 1000.0
    assert not run.is_good
    assert "FAULTS of 0 sent: nothing was sent." in table.render(dataclasses.replace(REPORT, runs=[run]))


def test_a_run_whose_messages_came_late_is_no_fault_but_says_that_it_has_no_figure() -> None:
    run = dataclasses.replace(RUN, delivered=0)

    assert run.is_good
    assert "None of it within the measured time" in table.render(dataclasses.replace(REPORT, runs=[run]))


@pytest.mark.parametrize(
    "bad", [dataclasses.replace(RUN, faults={"lost": 1, "doubled": 0}), dataclasses.replace(RUN, refused={"busy": 2})]
)
def test_one_fault_or_one_refusal_spoils_the_report(bad: Run) -> None:
    spoilt = dataclasses.replace(REPORT, runs=[RUN, bad])

    assert REPORT.is_good
    assert not spoilt.is_good
    assert not dataclasses.replace(REPORT, runs=[]).is_good


def test_the_verdict_names_each_fault_with_its_count() -> None:
    run = dataclasses.replace(RUN, faults={"lost": 1200, "doubled": 0, "disordered": 3}, refused={"1 busy": 2})

    text = table.render(dataclasses.replace(REPORT, runs=[run]))

    assert "w1b 200/s: FAULTS of 2,600 sent: 1,200 lost, 3 disordered, 2 refused with 1 busy." in text


def test_messages_that_mongodb_never_got_have_no_time_until_it_had_them() -> None:
    run = dataclasses.replace(RUN, faults={reports.NOT_STORED: 2}, catch_up_seconds=120.0)

    text = table.render(dataclasses.replace(REPORT, runs=[run]))

    assert "never" in text
    assert "120" not in text


def test_columns_are_aligned_whatever_their_width() -> None:
    runs = [RUN, dataclasses.replace(RUN, workload="w1a", rate=0.0, delivered=123_456, cpu_seconds={"gateway": 9999.0})]

    lines = table.render(dataclasses.replace(REPORT, runs=runs)).splitlines()

    for title in ("msg/s", "gateway"):
        (at,) = (at for at, line in enumerate(lines) if line.split()[:1] == [title])
        assert len({len(line) for line in lines[at : at + 3]}) == 1
    assert any(line.startswith("w1a ") for line in lines)
    assert any(line.startswith("w1b 200/s ") for line in lines)
    assert all(line == line.rstrip() for line in lines)


def test_the_table_shows_where_and_how_it_was_measured() -> None:
    text = table.render(REPORT)

    assert "commit abc1234+" in text
    assert "2 x Some Processor, 8.0 GiB" in text
    assert "gateway_server=daphne" in text
    assert "gateway 0.5, worker 1.2, all 1.8" in text
    assert "1,234.5" in text


def test_the_file_holds_every_figure_of_the_table() -> None:
    document = orjson.loads(reports.dump(REPORT))

    (run,) = document["runs"]
    assert document["commit"] == "abc1234+"
    assert document["settings"]["lease_ms"] == 5000
    assert run["latency"] == {"count": 2000, "p50": 2.5, "p95": 10.0, "p99": 20.0, "max": 1234.5}
    assert (run["delivered_per_second"], run["server_cpu_ms_per_msg"]) == (200.0, 2.0)
    assert document["is_good"] is True


def test_the_settings_kept_are_numbers_and_choices_and_neither_secrets_nor_places() -> None:
    settings = reports.describe_settings(Config(auth_secret="hush", data_dir="/somewhere", gateway_server="uvicorn"))

    assert settings["gateway_server"] == "uvicorn"
    assert settings["shards"] == Config().shards
    assert not {"auth_secret", "data_dir", "mongo_url", "redis_url", "web_port"} & set(settings)


def test_the_processors_name_is_read_from_what_linux_tells() -> None:
    assert reports.processor_model("processor: 0\nmodel name\t: Fast   Chip @ 3 GHz\nflags: x\n") == "Fast Chip @ 3 GHz"
    assert reports.processor_model("")


# -- several runs, baselines


def test_the_distribution_ends_with_the_slowest_and_rises() -> None:
    curve = reports.curve_of([number / 1000 for number in range(1000, 0, -1)])

    assert curve[0] == (0.0, 1.0)
    assert curve[-1] == (100.0, 1000.0)
    assert (99.9, 999.0) in curve
    assert curve == sorted(curve)
    assert reports.curve_of([]) == []


def test_figures_of_several_runs_are_shown_as_their_median_and_spread() -> None:
    runs = [dataclasses.replace(RUN, delivered=count) for count in (3000, 1000, 2000)]

    text = table.render(dataclasses.replace(REPORT, runs=runs))

    assert Spread.of([3.0, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0)
    assert "200 (100\u2013300)" in text
    assert table.show([4.0], 1) == "4.0"


def test_baselines_are_compared_with_what_was_measured_beside_them() -> None:
    runs = [
        dataclasses.replace(RUN, workload="w1a", rate=0.0),
        dataclasses.replace(RUN, workload="chain", rate=0.0, delivered=500),
        RUN,
        dataclasses.replace(RUN, workload="batching", latency=Latency(10, 50.0, 90.0, 99.0, 110.0)),
    ]

    chain, batching = reports.compare(dataclasses.replace(REPORT, runs=runs))

    assert (chain.ours, chain.theirs, chain.ratio) == (200.0, 50.0, 4.0)
    assert (batching.ours, batching.theirs, batching.ratio) == (2.5, 50.0, 20.0)
    assert reports.compare(dataclasses.replace(REPORT, runs=runs[1:2])) == []
    assert "chain of Celery tasks" in table.render(dataclasses.replace(REPORT, runs=runs))


def test_a_run_that_measures_other_things_than_messages_is_not_charged_by_message() -> None:
    run = dataclasses.replace(
        RUN, workload="w5", rate=0.0, is_per_msg=False, series={"send 10,000": Latency(9, 1.5, 2.5, 3.5, 4.5)}
    )

    text = table.render(dataclasses.replace(REPORT, runs=[run]))

    assert "w5 send 10,000" in text
    assert "CPU ms a message" not in text
    assert "cpu_ms_per_msg" not in reports.to_json(dataclasses.replace(REPORT, runs=[run]))["runs"][0]


def test_pictures_are_drawn_of_what_there_are_figures_for(tmp_path: Path) -> None:
    plain = dataclasses.replace(RUN, curve=reports.curve_of([0.001, 0.002, 0.5]), steps=[100.0, 0.0, 200.0])
    nodes = [dataclasses.replace(plain, workload="w6", gateways=count) for count in (1, 5)]
    sizes = {f"{what} {size}": Latency(9, 1, 2, 3, 4) for what in ("send", "pull old") for size in ("1,000", "20,000")}
    history = dataclasses.replace(RUN, workload="w5", rate=0.0, series=sizes)

    drawn = plots.draw(dataclasses.replace(REPORT, runs=[plain, plain, *nodes, history]), tmp_path / "x")

    assert [path.name for path in drawn] == [
        f"x-{name}.png" for name in ("latency", "throughput", "cpu", "history", f"nodes-{plain.rate:g}")
    ]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in drawn)
    assert plots.draw(dataclasses.replace(REPORT, runs=[history]), tmp_path / "y") == [tmp_path / "y-history.png"]


def test_several_nodes_are_drawn_at_one_rate_in_all_and_at_one_rate_for_each(tmp_path: Path) -> None:
    rates = [(1, 10.0), (1, 20.0), (2, 20.0)]
    runs = [dataclasses.replace(RUN, workload="w6", gateways=count, rate=rate) for count, rate in rates]

    drawn = plots.draw(dataclasses.replace(REPORT, runs=runs), tmp_path / "x")

    assert {path.name for path in drawn} == {"x-cpu.png", "x-nodes-20.png", "x-nodes-10-each.png"}


def test_an_event_to_a_node_without_its_receiver_is_seen() -> None:
    seen = Seen()

    seen.note(pack([("op", b"", ["alice"])])[0], {"alice", "bob"})
    seen.note({"type": "node.beat"}, {"alice"})
    assert (seen.events, seen.astray) == (1, 0)

    seen.note(pack([("op", b"", ["alice"]), ("op", b"", ["carol"])])[0], {"alice"})
    seen.note({"type": PUSH_EVENT, "users": [], "frames": []}, {"alice"})
    assert (seen.events, seen.astray) == (3, 2)


# -- the command


def test_every_workload_is_registered_under_its_functions_name() -> None:
    assert {"w1a", "w1b"} <= set(WORKLOADS)
    assert all(name == workload.name == workload.drive.__name__ for name, workload in WORKLOADS.items())


def test_connections_are_as_many_as_the_machine_allows_and_the_limit_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert people.most_connections(10) == (10, "")

    monkeypatch.setattr(resource, "getrlimit", lambda _which: (256, 1000))

    count, why = people.most_connections(10_000)
    assert count == 1000 - people.SPARE_FILES
    assert "RLIMIT_NOFILE" in why
    assert "1,000 files" in why


def test_counters_are_told_by_message_sent() -> None:
    after = {
        "im_push_node_events_total": 60.0,
        "im_gateway_frames_encoded_total": 100.0,
        "im_gateway_frames_sent_total{push}": 400.0,
    }

    figures = figures_of({"im_push_node_events_total": 10.0}, after, sent=100)

    assert [figures[what] for what in reports.COUNTED] == [0.5, 1.0, 0.25, 0.0]
    assert list(figures_of({}, {}, sent=0).values()) == [0.0] * len(reports.COUNTED)


def test_workloads_are_picked_by_name_by_beginning_or_all() -> None:
    assert pick_workloads([]) == list(USUAL)
    assert pick_workloads(["all"]) == list(WORKLOADS)
    assert pick_workloads(["w2"]) == ["w2a", "w2b"]
    assert pick_workloads(["w3", "w1", "w3"]) == ["w3", "w1a", "w1b", "w1c"]


def test_each_case_of_a_call_has_a_name_of_its_own() -> None:
    cases = list(cases_of(Options(workloads=pick_workloads(["all"]))))

    names = [case.name for case in cases]
    assert len(set(names)) == len(names)
    assert {"w1b 200/s", "w1b 1000/s", "w6 200/s 1 node", "w6 3000/s 20 nodes", "w5", "batching 200/s"} <= set(names)
    assert {"w6 10/s 1 node", "w6 20/s 2 nodes", "w6 100/s 10 nodes", "w6 200/s 20 nodes"} <= set(names)
    assert all(case.rate > 0 if case.workload.is_open_loop else case.window > 0 for case in cases)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["w9"], "unknown workload w9"),
        (["--history", "100"], "at least 300"),
        (["--nodes", "1,x"], "expected numbers"),
        (["--runs", "0"], "--runs"),
        (["--members", "1"], "--members"),
        (["--rates", "200,fast"], "expected numbers"),
        (["--rates", "0"], "above 0"),
        (["--text-bytes", "3"], "--text-bytes"),
        (["--pairs", "0"], "--pairs"),
        (["--seconds", "-1"], "--seconds"),
    ],
)
def test_arguments_that_cannot_be_used_are_refused_before_anything_starts(arguments: list[str], text: str) -> None:
    with pytest.raises(CommandError, match=text):
        call_command("bench", *arguments)
