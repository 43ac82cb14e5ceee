"""Events of every kind, for property tests: valid each by itself, and together anything."""

from hypothesis import strategies as st

from lockstep_bench.harness.records.format import (
    BuildEvent,
    EvaluationEvent,
    Event,
    ExtraEvent,
    FloorEvent,
    StartEvent,
    TurnEvent,
)

Events = st.SearchStrategy[Event]

text = st.text(max_size=20)
numbers = st.floats(-1e15, 1e15) | st.sampled_from([0.0, -0.0, 1e15, -1e15, 5e-324])
seconds = st.floats(0, 1e9) | st.sampled_from([0.0, 5e-324, 1e9])
positive = st.floats(0, 1e15, exclude_min=True) | st.sampled_from([5e-324, 1.0, 1e15])
percents = st.floats(0, 100) | st.sampled_from([0.0, 100.0])
counts = st.integers(0, 2**53) | st.sampled_from([0, 2**53])
versions = st.dictionaries(text, text, max_size=3)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=5,
)
pools = st.dictionaries(text, json_values, max_size=3) | st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(("internal_api", "version", "architecture"), json_values) | {"user_api": st.just("blas")},
)
"""What threadpoolctl might have said."""


def events_of(
    names: st.SearchStrategy[str],
    places: st.SearchStrategy[int],
) -> tuple[Events, ...]:
    """What backends of these names do in rounds and epochs of these numbers; training and evaluating come last."""
    start = st.builds(
        StartEvent,
        backend=names,
        **dict.fromkeys(("start_seconds", "import_seconds"), seconds),
        versions=versions,
        source_sha256=st.none() | text,
        memory_bytes=counts,
    )
    build = st.builds(
        BuildEvent,
        backend=names,
        build_seconds=seconds,
        weights_sha256=text,
        memory_bytes=counts,
        pools=st.lists(pools, max_size=2),
        variables=versions,
        **dict.fromkeys(("epsilon", "l2"), numbers),
    )
    rates = dict.fromkeys(("flops_per_second", "bytes_per_second"), positive)
    floor = st.builds(FloorEvent, round=places, at_seconds=seconds, **rates)
    extra = st.builds(
        ExtraEvent,
        backend=names,
        latency_seconds=st.lists(seconds, max_size=3) | st.just([0.0] * 300),
        call_seconds=st.none() | numbers,
    )
    turn = st.builds(
        lambda start, more, **rest: TurnEvent(start=start, stop=start + more, **rest),
        start=st.integers(0, 2**52),
        more=st.integers(1, 2**52),
        backend=names,
        **dict.fromkeys(("epoch", "round"), places),
        involuntary_switches=counts,
        steps=st.integers(1, 2**31),
        **dict.fromkeys(("at_seconds", "cpu_seconds", "load_average", "suspended_seconds"), seconds),
        train_seconds=positive,
        train_loss=numbers,
        steal_percent=st.none() | numbers,
        waiting_seconds=st.dictionaries(names | text, numbers, max_size=3),
    )
    evaluation = st.builds(
        EvaluationEvent,
        backend=names,
        epoch=places,
        **dict.fromkeys(("threads_used", "peak_bytes"), counts),
        weights_seconds=st.tuples(seconds, seconds),
        affinity=st.lists(counts, max_size=3),
        predict_seconds=positive,
        evaluate_seconds=seconds,
        **dict.fromkeys(("train_error_percent", "test_error_percent"), percents),
        test_loss=numbers,
        order_sha256=text,
        **dict.fromkeys(("disagreements", "device_peak_bytes"), st.none() | counts),
        weights_difference=st.none() | numbers,
    )
    return start, build, floor, extra, turn, evaluation
