"""What the load programs print, and the records that a benchmark keeps of it.

A results file holds one record a line, in JSON, told apart by `kind`: the machine, then a run of
the generator, a run of the send floor, or a failure. The tables are made of these records and of
nothing else, so an old file can be read again.
"""

from collections.abc import Iterable
from pathlib import Path

import msgspec

LEAST_CPU_SECONDS = 0.2
"""/proc/PID/stat counts CPU in ticks of 10 ms: 20 of them are known to 5 %."""


class Latency(msgspec.Struct, frozen=True):
    """From the moment at which a message was due to its arrival at a subscriber, in ms."""

    p50: float
    p99: float
    p99_9: float = msgspec.field(name="p99.9")
    max: float


class AckLatency(msgspec.Struct, frozen=True):
    """From the moment at which a message was due to its acknowledgement, in ms."""

    p50: float
    p99: float
    max: float


class Step(msgspec.Struct, frozen=True):
    """One measured window of wsload. CPU and waits are shares of one core.

    `missing` is negative when more was delivered than was expected. `server_wait` and
    `generator_wait` are the shares of the window in which the process was ready to run while
    something else had its core: well above 0, the window is spoilt.
    """

    rate: float
    ok: bool
    why: str
    window_s: float
    published: int
    expected: int
    delivered: int
    missing: int
    deliveries_per_s: float
    frames_per_s: float
    latency_ms: Latency
    publish_late_p99_ms: float
    generator_cpu: float
    generator_wait: float
    server_cpu: float
    server_wait: float
    server_cpu_us_per_delivery: float
    lost: int
    acked: int = 0
    ack_ms: AckLatency | None = None

    def cpu_per_delivery(self) -> float | None:
        """The server's CPU in µs; None when it used too little for the kernel's clock to tell."""
        if self.server_cpu * self.window_s < LEAST_CPU_SECONDS:
            return None
        return self.server_cpu_us_per_delivery


class Order(msgspec.Struct, frozen=True):
    """Faults of order, counted over a whole run."""

    duplicates: int
    out_of_order: int
    gaps: int
    wrong_room: int
    untagged: int
    server_seq_breaks: int
    rooms_disagreeing: int

    def faults(self) -> int:
        """The sum of all of them."""
        return sum(msgspec.structs.astuple(self))


class Totals(msgspec.Struct, frozen=True):
    """Counts over a whole run, warm-up included; `bytes` are those received."""

    published: int
    delivered: int
    acked: int
    frames: int
    bytes: int
    protocol_errors: int


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What one run of wsload says: `best` after a search, `result` after a fixed rate."""

    mode: str
    conns: int
    rooms: int
    established: int
    failed: int
    lost: int
    connects_per_s: float
    server_rss_bytes_per_conn: float
    server_rss_kb: tuple[int, int]
    totals: Totals
    first_error: str
    best: Step | None = None
    result: Step | None = None
    steps: list[Step] = []
    order: Order | None = None

    @property
    def step(self) -> Step | None:
        """The window that counts, if the run had one that held."""
        return self.best or self.result

    def faults(self) -> int:
        """Messages missing or too many, out of order or in the wrong place, and connections lost."""
        missing = abs(self.result.missing) if self.result else 0
        return missing + self.lost + self.totals.protocol_errors + (self.order.faults() if self.order else 0)


class SendFloor(msgspec.Struct, frozen=True):
    """What send_floor says: the CPU of one send() of a prebuilt frame, in µs."""

    sockets: int
    frame_bytes: int
    sends_per_s: float
    cpu_us_per_send: float


class Machine(msgspec.Struct, frozen=True, tag_field="kind", tag="machine"):
    """Where, of what and how large (`scale`) a benchmark was made."""

    at: str
    cpu: str
    cores: tuple[int, int]
    kernel: str
    filesystem: str
    commit: str
    scale: str
    versions: dict[str, str]


class Run(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="run"):
    """One run of the generator against a fresh server.

    `load` says what of the test it was ("search", "idle", "half of fan1", ...); `observed` is what
    the server said of itself, in ms.
    """

    server: str
    test: str
    load: str
    number: int
    command: str
    report: Report
    observed: dict[str, float] = {}


class FloorRun(msgspec.Struct, frozen=True, tag_field="kind", tag="send-floor"):
    """The send floor, measured right after the unbatched run of `server`, with frames of its size."""

    server: str
    number: int
    floor: SendFloor


class Failure(msgspec.Struct, frozen=True, tag_field="kind", tag="failure"):
    """A run that gave no figure."""

    server: str
    test: str
    number: int
    message: str


Record = Machine | Run | FloorRun | Failure

read_report = msgspec.json.Decoder(Report).decode
read_floor = msgspec.json.Decoder(SendFloor).decode


def write_record(path: Path, record: Record) -> None:
    """Append one line to a results file."""
    with path.open("ab") as file:
        file.write(msgspec.json.encode(record) + b"\n")


def read_records(lines: Iterable[bytes]) -> list[Record]:
    """The records of a results file.

    Raises:
        msgspec.DecodeError: a line is no record.
    """
    decoder: msgspec.json.Decoder[Record] = msgspec.json.Decoder(Record)
    return [decoder.decode(line) for line in lines if line.strip()]
