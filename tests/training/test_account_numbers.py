"""The parts of the efficiency account that need no training: clock, counters, sums over ranks, a GPU's time line."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from tests.waiting import eventually
from training_core.efficiency.clock import PhaseClock
from training_core.efficiency.energy import EnergyMeter, Gpus, Rapl
from training_core.efficiency.host import CpuReading, Host
from training_core.efficiency.meter import Meter
from training_core.efficiency.ranks import Stragglers
from training_core.engine.account_numbers import step_shares


def spin(seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def test_every_second_has_exactly_one_name() -> None:
    clock = PhaseClock(prepare=2.0, waiting=1.0)
    begun = time.perf_counter()
    with clock.phase("startup"):
        spin(0.01)
        clock.lap("data_wait")
        with clock.phase("evaluate"):
            spin(0.02)
        spin(0.01)
    spin(0.01)
    seconds = clock.now()
    took = time.perf_counter() - begun
    assert sum(seconds.values()) == pytest.approx(3.0 + took, abs=0.002)
    assert (seconds["prepare"], seconds["waiting"]) == (2.0, 1.0)
    for name, least in (("data_wait", 0.01), ("evaluate", 0.02), ("startup", 0.01), ("other", 0.01)):
        assert seconds[name] >= least, name
    assert seconds["evaluate"] < took - 0.03 + 0.001
    assert clock.interruptions == 2


def test_a_summary_of_the_clock_adds_up_too() -> None:
    clock = PhaseClock(prepare=0.5)
    with clock.phase("startup"):
        clock.lap("compute")
    told = clock.account()
    total = told.pop("total")
    assert sum(told.values()) == pytest.approx(total, abs=0.001)


def test_a_gap_of_the_host_clock_is_other_where_a_gpu_has_a_time_line() -> None:
    on_host = {"data_wait": 1.0, "compute": 2.0, "loop": 7.0}
    shares = step_shares(on_host, {"data_wait": 0.5, "compute": 8.0, "optimizer": 1.0})
    assert shares["compute"] == 8.0
    assert shares["other"] == pytest.approx(0.5)
    assert sum(shares.values()) == pytest.approx(10.0)
    # Events that are read late may be of more time than the host's clock has counted so far.
    shares = step_shares(on_host, {"compute": 20.0})
    assert sum(shares.values()) == pytest.approx(10.0)


def test_without_a_time_line_the_shares_are_those_of_the_clock() -> None:
    assert step_shares({"data_wait": 1.0, "loop": 2.0, "startup": 9.0}, {})["other"] == 2.0


class RecordedEvent:
    """A CUDA event of a stream whose times were recorded; `done_until` is how far the device has come."""

    times: ClassVar[list[float]] = []
    done_until: ClassVar[float] = 0.0

    def __init__(self, *, enable_timing: bool) -> None:
        assert enable_timing

    def record(self) -> None:
        self.at = self.times.pop(0)

    def query(self) -> bool:
        return self.at <= RecordedEvent.done_until

    def elapsed_time(self, end: RecordedEvent) -> float:
        return 1000 * (end.at - self.at)


def test_a_time_line_reads_events_when_they_are_past_and_leaves_interruptions_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "Event", RecordedEvent)
    # Two steps of transfer, compute, optimizer, loop; an evaluation of 90 s; one lap more.
    RecordedEvent.times = [0.0, 1.0, 4.0, 4.5, 4.5, 6.5, 9.5, 10.0, 100.0, 101.0, 101.0]
    clock = PhaseClock()
    meter = Meter(clock, torch.device("cuda"), 1)
    RecordedEvent.done_until = 4.2
    for name in ("transfer", "data_wait", "compute", "loop"):
        meter.lap(name)
    assert dict(meter.device_seconds) == {"data_wait": 1.0, "compute": 3.0}, "the last one is not past yet"
    RecordedEvent.done_until = 200.0
    for name in ("data_wait", "transfer", "compute", "loop"):
        meter.lap(name)
    assert sum(meter.device_seconds.values()) == pytest.approx(10.0)
    with clock.phase("evaluate"):
        pass
    for name in ("data_wait", "compute", "loop"):
        meter.lap(name)
    assert meter.device_seconds["compute"] == pytest.approx(3.0 + 3.0 + 1.0)
    assert sum(meter.device_seconds.values()) == pytest.approx(11.0)


def test_the_slowest_rank_and_by_how_much() -> None:
    ranks = Stragglers()
    assert ranks.times() is None
    ranks.add(10, [1.0, 1.5, 1.1], [0.1, 0.2, 0.1])
    ranks.add(10, [1.0, 1.7, 0.9], [0.1, 0.0, 0.1])
    times = ranks.times()
    assert times is not None
    assert times.slowest == 1
    assert times.step_seconds == [0.1, 0.16, 0.1]
    assert times.data_wait_seconds == [0.01, 0.01, 0.01]
    assert times.spread == pytest.approx(0.6)
    assert not times.slowest_changes
    for _ in range(3):
        ranks.add(10, [2.0, 1.0, 1.0], [0.0, 0.0, 0.0])
    times = ranks.times()
    assert times is not None
    assert times.slowest_changes, "rank 0 was the slowest in three stretches of five"


def test_one_rank_alone_has_no_straggler() -> None:
    ranks = Stragglers()
    ranks.add(10, [1.0], [0.0])
    assert ranks.times() is None


def zone(powercap: Path, name: str, microjoules: int, most: int = 1000) -> Path:
    folder = powercap / name
    folder.mkdir(parents=True)
    (folder / "energy_uj").write_text(f"{microjoules}\n")
    (folder / "max_energy_range_uj").write_text(f"{most}\n")
    return folder / "energy_uj"


def test_energy_of_all_packages_over_a_wrap(tmp_path: Path) -> None:
    first, second = zone(tmp_path, "intel-rapl:0", 900), zone(tmp_path, "intel-rapl:1", 100)
    zone(tmp_path, "intel-rapl:0:0", 5)  # a part of the first, counted there
    rapl = Rapl(tmp_path)
    first.write_text("50\n")
    second.write_text("300\n")
    assert rapl.joules() == pytest.approx(350e-6)
    first.write_text("60\n")
    energy = EnergyMeter(None, rapl).read()
    assert (energy.source, energy.missing_because) == ("rapl", None)
    assert rapl.joules() == pytest.approx(360e-6)


def test_energy_that_nobody_counts_says_why(tmp_path: Path) -> None:
    energy = EnergyMeter(None, Rapl(tmp_path / "none")).read()
    assert energy.joules is None
    assert energy.missing_because == "this host shows no RAPL counter"


@pytest.mark.skipif(torch.cuda.is_available(), reason="has NVML")
def test_a_gpu_that_nvml_does_not_know_says_why() -> None:
    gpus = Gpus(1)
    assert gpus.missing_because is not None
    assert gpus.missing_because.startswith("NVML is not there")
    assert (gpus.sample(), gpus.seen(), gpus.joules()) == ({}, None, None)


def test_the_host_counts_what_this_process_burns() -> None:
    host = Host()
    before = host.cpu()
    used = time.process_time()
    while time.process_time() - used < 0.05:
        pass
    passed = host.cpu().since(before)
    assert 0.05 <= passed.used <= passed.at + 0.05
    assert passed.busy is None or passed.busy >= 0
    assert passed.delayed is None or passed.delayed >= 0


def test_what_its_child_burns_counts_too() -> None:
    host = Host()

    def beside_me() -> float:
        return host.cpu().used - time.process_time()

    before = beside_me()  # what children of other tests have burnt
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as child:
        eventually(lambda: beside_me() - before > 0.5)
        child.kill()
    assert beside_me() - before < 0.25, "it has ended"


def test_a_counter_that_is_missing_stays_missing() -> None:
    one, other = CpuReading(2.0, 1.0, 5.0, None, 0.5, None), CpuReading(1.0, 0.5, None, 1.0, 0.6, None)
    assert one.since(other) == CpuReading(1.0, 0.5, None, None, 0.0, None)


def test_gauges_have_units_in_their_names() -> None:
    values: dict[str, Any] = Host().gauges()
    assert values["gauge/memory_process_bytes"] > 2**20
    assert all(name.startswith("gauge/") and value >= 0 for name, value in values.items())
