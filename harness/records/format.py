"""The record format of a run: what its plan and the events of its blocks hold.

A results folder holds `plan.json`, a `Plan`; `blocks/<block id>.jsonl`, an event per line; and `blocks/<block id>.npz`,
arrays (`raw_files.py`). Everything else in it is derived from these. Every field is checked when it is read, for a
record may come from a stranger: it is data and nothing else, its names are names, its numbers are numbers that there
can be, and no path in it is followed.
"""

from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

from lockstep_bench.backends import NAME
from lockstep_bench.backends.base import Style
from lockstep_bench.harness.problem import EpsilonPlacement, Initializer, Problem, Profile

Status = Literal["ok", "not-identical", "diverged", "error", "timeout", "killed", "interrupted", "skipped"]

Name = Annotated[str, Field(pattern=f"^{NAME.pattern}$")]
"""Of a backend, a block, a dataset: names become names of files, cells of tables and parts of a page."""
Count = Annotated[int, Field(ge=0, le=2**53)]
Number = Annotated[float, Field(ge=-1e15, le=1e15)]
Seconds = Annotated[float, Field(ge=0, le=1e9)]
Positive = Annotated[float, Field(gt=0, le=1e15)]
"""Something that took no time at all was not measured."""
Percent = Annotated[float, Field(ge=0, le=100)]
MOST_TOGETHER = 100
"""Seeds in a block: each takes 15 MB, and its predictions of all test images as much again."""
MOST_SEEDS = 100_000


class Record(BaseModel):
    """Anything that is read from disk: unknown fields and numbers that are not finite are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class PlannedBackend(Record):
    """A backend as the plan resolved it; `spec` is what loaded it, `skip` why it cannot run here.

    `device` is where it trains if that is not the plan's: the reference has only the CPU, and is part of every run.
    `source_sha256` is of the adapter's own code. Plans from before runs could be resumed lack it.
    """

    name: Name
    style: Style
    spec: str
    versions: dict[str, str]
    skip: str | None = None
    source_sha256: str | None = None
    device: str | None = None


class PlannedDataset(Record):
    """The dataset as resolved: how much of it is used, and the hash of all of it."""

    name: Name
    sha256: str
    train_images: Annotated[int, Field(ge=1, le=2**31)]
    test_images: Annotated[int, Field(ge=1, le=2**31)]


class Block(Record):
    """Reference and chosen backends, one seed, one machine: the unit of resuming and of distribution.

    `replicate` (1, 2, ...) tells blocks apart that do the same in processes of their own.
    """

    id: Name
    seed: Count
    threads: Annotated[int, Field(ge=1, le=2**16)]
    replicate: Annotated[int, Field(ge=1, le=2**16)] = 1


class Plan(Record):
    """What was asked for, as resolved when the run began; plans from before runs could be resumed lack `python`.

    `fixed_steps` is for plans that end after so many steps, whole batches all of them: the Problem then has one epoch,
    which is as long as they are (`problem.fixed_order`). `keep` has the names of the deciding environment variables
    that workers inherit.
    """

    file: ClassVar[str] = "plan.json"
    format: Literal[2] = 2
    lockstep: str
    python: str | None = None
    commit: str | None
    commit_clean: bool | None
    command: str
    preset: str | None
    profile: Profile = "identical"
    problem: Problem
    dataset: PlannedDataset
    backends: Annotated[list[PlannedBackend], Field(min_length=1, max_length=1000)]
    blocks: Annotated[list[Block], Field(min_length=1, max_length=100_000)]
    device: str
    slice_steps: Annotated[int, Field(ge=1, le=2**31)]
    fixed_steps: Annotated[int, Field(ge=1, le=2**31)] | None = None
    turn_timeout_seconds: Positive
    target_error_percent: Number
    machine: str
    keep: list[str] = Field(default_factory=list)

    @model_validator(mode="after")
    def _nothing_twice(self) -> Self:
        for what in ([backend.name for backend in self.backends], [block.id for block in self.blocks]):
            if twice := next((name for name in what if what.count(name) > 1), None):
                raise ValueError(f"{twice} is in it twice")
        return self

    @model_validator(mode="after")
    def _no_larger_than_a_run_can_be(self) -> Self:
        for name in ("inputs", "hidden", "classes", "batch_size", "epochs"):
            if getattr(self.problem, name) > 2**31:
                raise ValueError(f"the problem's {name} is more than {2**31:,}")
        return self

    @property
    def reference(self) -> PlannedBackend:
        """The backend that the others are compared with: always the first."""
        return self.backends[0]

    @property
    def twin(self) -> PlannedBackend | None:
        """The reference once more, under another name: the two differ by noise alone. None without `--aa`."""
        return next((one for one in self.backends[1:] if one.spec == self.reference.spec), None)

    @property
    def epoch_images(self) -> int:
        """How many images an epoch trains on, some of them more than once where the steps are fixed."""
        return self.fixed_steps * self.problem.batch_size if self.fixed_steps else self.dataset.train_images

    @property
    def threads(self) -> list[int]:
        """The thread counts that were asked for, in order; each has tables of its own."""
        return list(dict.fromkeys(block.threads for block in self.blocks))


class SeedsPlan(Plan):
    """What was asked for: seeds 0 to `count` - 1, `together` in a block; of blocks in `checked` the first seed is."""

    file: ClassVar[str] = "seeds.json"
    count: Annotated[int, Field(ge=1, le=MOST_SEEDS)]
    together: Annotated[int, Field(ge=1, le=MOST_TOGETHER)]
    checked: list[str]

    @model_validator(mode="after")
    def _every_seed_once(self) -> Self:
        if [block.seed for block in self.blocks] != list(range(0, self.count, self.together)):
            raise ValueError("the blocks do not begin at every so many seeds")
        if not set(self.checked) <= {block.id for block in self.blocks}:
            raise ValueError("a block is checked that is not in it")
        if len(self.backends) != 2:
            raise ValueError("there must be two backends: the reference and the one that trains seeds side by side")
        return self

    def seeds(self, block: Block) -> list[int]:
        """The seeds of a block, the checked one first."""
        return list(range(block.seed, min(block.seed + self.together, self.count)))


PlanKind = TypeVar("PlanKind", bound=Plan)


class MachineEvent(Record):
    """The first line of a block: when (UTC, ISO 8601) and on what it was run.

    `nodes` is how many nodes of a cluster were on that machine: where there are more than one, blocks disturbed each
    other. Of the environment variables that decide how fast a backend computes, workers started without those in
    `variables_removed`, and inherited `variables_kept`. Records of before lack both: they inherited all, which are in
    `details`.
    """

    event: Literal["machine"] = "machine"
    machine: str
    started: str
    details: dict[str, Any]
    nodes: Annotated[int, Field(ge=1, le=2**16)] = 1
    variables_removed: dict[str, str] | None = None
    variables_kept: dict[str, str] | None = None


class StartEvent(Record):
    """A worker process is there and has imported its framework; `memory_bytes` is what it then held resident.

    `source_sha256` is of the adapter's own code. Records from before two runs could be compared lack it.
    """

    event: Literal["start"] = "start"
    backend: Name
    start_seconds: Seconds
    import_seconds: Seconds
    versions: dict[str, str]
    source_sha256: str | None = None
    memory_bytes: Count


class BuildEvent(Record):
    """A backend stands at step 0; the hash says which initial weights it was given.

    `initializer`, `epsilon`, `epsilon_placement` and `l2` are what it trains with, as in `problem.Defaults`. Records
    from before there was a native profile lack them: all trained with these.

    `pools` are its thread pools as threadpoolctl reports them, `variables` the environment's that decide.
    """

    event: Literal["build"] = "build"
    backend: Name
    build_seconds: Seconds
    weights_sha256: str
    memory_bytes: Count
    pools: list[dict[str, Any]]
    variables: dict[str, str]
    initializer: Initializer = "glorot-uniform"
    epsilon: Number = 1e-7
    epsilon_placement: EpsilonPlacement = "uncorrected"
    l2: Number = 0.0


class TurnEvent(Record):
    """One slice trained: the images `start` to `stop` of the epoch's order, `at_seconds` after the block began.

    Conditions of the turn: the worker's CPU seconds and involuntary context switches within `train_seconds`; around
    it, as the conductor sees it, the part of the machine's CPU time that its host took (none where the system knows of
    no host), for how long a container's quota held its CPUs back (none without a quota), the load average of the last
    minute, the CPU seconds of every waiting worker, and for how long the machine was suspended, which `train_seconds`
    does not count.
    """

    event: Literal["turn"] = "turn"
    backend: Name
    epoch: Count
    round: Count
    start: Count
    stop: Count
    steps: Annotated[int, Field(ge=1, le=2**31)]
    at_seconds: Seconds
    train_seconds: Positive
    train_loss: Number
    cpu_seconds: Seconds
    involuntary_switches: Count
    steal_percent: Number | None
    throttled_seconds: Seconds | None = None
    load_average: Seconds
    waiting_seconds: dict[str, Number]
    suspended_seconds: Seconds = 0.0

    @model_validator(mode="after")
    def _has_images(self) -> Self:
        if self.stop <= self.start:
            raise ValueError("stop must be more than start")
        return self


class FloorEvent(Record):
    """What the machine can do at best, measured in a turn of its own: `floor.measure`."""

    event: Literal["floor"] = "floor"
    round: Count
    at_seconds: Seconds
    flops_per_second: Positive
    bytes_per_second: Positive


class EvaluationEvent(Record):
    """The network after an epoch, off the training clock; `predict_seconds` is for the test images.

    `weights_seconds` are those of the first and of a second call of `weights()` after the epoch's training: a first
    call that is much slower waited for work that was put off. `threads_used` counts the threads of the process that
    have been busy since `build`, `affinity` the CPUs that it may use; `peak_bytes` is the most it ever held resident.
    `disagreements` counts the test images predicted differently from the reference, and `weights_difference` is how far
    the weights are from the reference's, relative to how far those moved; none where there was no reference left, and
    in the native profile, where nobody is meant to agree. `device_peak_bytes` is the most that the framework held of a
    device's own memory; none on the CPU. Earlier records lack the latter two.
    Where the steps are fixed, `train_error_percent` is of the first `worker.SCORED_IMAGES` that were trained on.
    """

    event: Literal["evaluation"] = "evaluation"
    backend: Name
    epoch: Count
    weights_seconds: tuple[Seconds, Seconds]
    predict_seconds: Positive
    evaluate_seconds: Seconds
    train_error_percent: Percent
    test_loss: Number
    test_error_percent: Percent
    order_sha256: str
    threads_used: Count
    affinity: list[Count]
    peak_bytes: Count | None
    disagreements: Count | None
    weights_difference: Number | None = None
    device_peak_bytes: Count | None = None


class ExtraEvent(Record):
    """Measured after the last epoch, when nothing counts any more: seconds of single predictions and of a call.

    `call_seconds` is what one call of `train` costs beyond its steps. A value that was not measured is empty or none.
    `latency_reason` and `call_reason` say why it was not, or why it was measured less often than it should be; none
    where there is nothing to say. Records from before these measurements had a limit of time lack the two.
    """

    event: Literal["extra"] = "extra"
    backend: Name
    latency_seconds: list[Seconds]
    call_seconds: Number | None
    latency_reason: str | None = None
    call_reason: str | None = None


class SeedScore(Record):
    """One of several seeds that are trained side by side, after an epoch.

    `disagreements` and `weights_difference`, as in an evaluation, from the reference that trained the seed by itself;
    none where none did.
    """

    seed: Count
    train_loss: Number
    test_loss: Number
    test_error_percent: Percent
    disagreements: Count | None = None
    weights_difference: Number | None = None


class SeedsEvent(Record):
    """An epoch of all seeds of a block: the seconds that training them took, and a score for each."""

    event: Literal["seeds"] = "seeds"
    backend: Name
    epoch: Count
    train_seconds: Positive
    scores: Annotated[list[SeedScore], Field(min_length=1, max_length=1000)]


class EndEvent(Record):
    """What became of a backend; with no backend, the last line of a block or of an interrupted attempt at it."""

    event: Literal["end"] = "end"
    backend: Name | None
    status: Status
    reason: str | None = None


Event = (
    MachineEvent
    | StartEvent
    | BuildEvent
    | TurnEvent
    | FloorEvent
    | EvaluationEvent
    | SeedsEvent
    | ExtraEvent
    | EndEvent
)
EVENT: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="event")])
