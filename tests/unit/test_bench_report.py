"""The benchmark's own arithmetic: a wrong figure, or a lost message that it does not see, would be believed."""

from __future__ import annotations

import dataclasses
import itertools

import orjson
import pytest
from django.core.management import CommandError, call_command
from hypothesis import given
from hypothesis import strategies as st

from gateway.codecs.registry import get_codec
from imserver.conf import Config
from imserver.protocol.gen.sdkws_pb2 import MsgData
from tests.benchmarks import report as reports
from tests.benchmarks import wire
from tests.benchmarks.load import Tally
from tests.benchmarks.report import Latency, Report, Run
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
    run = dataclasses.replace(RUN, delivered=0, seconds=0.0)

    assert run.delivered_per_second == 0.0
    assert run.cpu_ms_per_msg["gateway"] == 1000.0
    assert not run.is_good


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

    text = reports.render(dataclasses.replace(REPORT, runs=[run]))

    assert "w1b 200/s: FAULTS of 2,600 sent: 1,200 lost, 3 disordered, 2 refused with 1 busy." in text


def test_messages_that_mongodb_never_got_have_no_time_until_it_had_them() -> None:
    run = dataclasses.replace(RUN, faults={reports.NOT_STORED: 2}, catch_up_seconds=120.0)

    text = reports.render(dataclasses.replace(REPORT, runs=[run]))

    assert "never" in text
    assert "120" not in text


def test_columns_are_aligned_whatever_their_width() -> None:
    runs = [RUN, dataclasses.replace(RUN, workload="w1a", rate=0.0, delivered=123_456, cpu_seconds={"gateway": 9999.0})]

    lines = reports.render(dataclasses.replace(REPORT, runs=runs)).splitlines()

    for title in ("msg/s", "gateway"):
        (at,) = (at for at, line in enumerate(lines) if line.split()[:1] == [title])
        assert len({len(line) for line in lines[at : at + 3]}) == 1
    assert any(line.startswith("w1a ") for line in lines)
    assert any(line.startswith("w1b 200/s ") for line in lines)
    assert all(line == line.rstrip() for line in lines)


def test_the_table_shows_where_and_how_it_was_measured() -> None:
    text = reports.render(REPORT)

    assert "commit abc1234+" in text
    assert "2 x Some Processor, 8.0 GiB" in text
    assert "gateway_server=daphne" in text
    assert "gateway 0.5, worker 1.2, all 1.8" in text
    assert "1,234.5" in text


def test_the_file_holds_every_figure_of_the_table() -> None:
    document = orjson.loads(orjson.dumps(reports.to_json(REPORT)))

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


# -- the command


def test_every_workload_is_registered_under_its_functions_name() -> None:
    assert {"w1a", "w1b"} <= set(WORKLOADS)
    assert all(name == workload.name == workload.drive.__name__ for name, workload in WORKLOADS.items())


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["w9"], "unknown workload w9"),
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
