"""Every image once per epoch, every backend once per round, and nobody always after the same one."""

from collections import Counter
from itertools import pairwise, permutations

from hypothesis import given, settings
from hypothesis import strategies as st

from lockstep_bench.harness.running.schedule import Round, epoch_rounds, steps

NAMES = ("numpy", "keras", "pytorch", "scikit-learn", "jax", "mlx")

backend_lists = st.integers(1, len(NAMES)).map(lambda count: NAMES[:count])
image_counts, batch_sizes, slice_lengths = st.integers(1, 400), st.integers(1, 20), st.integers(1, 12)
seeds, epochs = st.integers(0, 2**32 - 1), st.integers(1, 40)


def rounds_of(
    backends: tuple[str, ...] = NAMES, *, seed: int = 0, epochs: int = 1, images: int, batch_size: int, slice_steps: int
) -> list[list[Round]]:
    """The rounds of the first epochs, epoch by epoch."""
    sizes = {"images": images, "batch_size": batch_size, "slice_steps": slice_steps}
    return [list(epoch_rounds(backends, seed=seed, epoch=epoch, **sizes)) for epoch in range(1, epochs + 1)]


@settings(deadline=None)
@given(backend_lists, seeds, epochs, image_counts, batch_sizes, slice_lengths)
def test_every_image_is_trained_on_once_per_epoch(
    backends: tuple[str, ...], seed: int, epoch: int, images: int, batch_size: int, slice_steps: int
) -> None:
    """Slices follow each other without gap or overlap, all but the last are whole, and none cuts a batch."""
    rounds = list(
        epoch_rounds(backends, seed=seed, epoch=epoch, images=images, batch_size=batch_size, slice_steps=slice_steps)
    )
    assert rounds[0].start == 0
    assert rounds[-1].stop == images
    assert all(one.stop == following.start for one, following in pairwise(rounds))
    assert all(slice_.stop - slice_.start == batch_size * slice_steps for slice_ in rounds[:-1])
    assert 0 < rounds[-1].stop - rounds[-1].start <= batch_size * slice_steps
    assert sum(steps(slice_.stop - slice_.start, batch_size) for slice_ in rounds) == steps(images, batch_size)


@settings(deadline=None)
@given(backend_lists, seeds, image_counts, batch_sizes, slice_lengths)
def test_every_backend_has_one_turn_per_round(
    backends: tuple[str, ...], seed: int, images: int, batch_size: int, slice_steps: int
) -> None:
    """A round is the unit of pairing: all are in it, once."""
    (rounds,) = rounds_of(backends, seed=seed, images=images, batch_size=batch_size, slice_steps=slice_steps)
    assert all(sorted(slice_.backends) == sorted(backends) for slice_ in rounds)


@settings(deadline=None)
@given(seeds, st.integers(1, 6), image_counts, batch_sizes, slice_lengths)
def test_second_round_of_a_pair_is_the_first_reversed(
    seed: int, epochs: int, images: int, batch_size: int, slice_steps: int
) -> None:
    """Rounds 1 and 2, 3 and 4, ..., also where an epoch ends between the two."""
    by_epoch = rounds_of(seed=seed, epochs=epochs, images=images, batch_size=batch_size, slice_steps=slice_steps)
    rounds = [slice_ for epoch in by_epoch for slice_ in epoch]
    assert all(
        second.backends == first.backends[::-1] for first, second in zip(rounds[::2], rounds[1::2], strict=False)
    )


@settings(deadline=None)
@given(st.integers(1, 6), image_counts, batch_sizes, slice_lengths)
def test_numbering_continues_over_epochs(epochs: int, images: int, batch_size: int, slice_steps: int) -> None:
    """1, 2, 3, ... through all epochs."""
    by_epoch = rounds_of(epochs=epochs, images=images, batch_size=batch_size, slice_steps=slice_steps)
    numbers = [slice_.number for epoch in by_epoch for slice_ in epoch]
    assert numbers == list(range(1, len(numbers) + 1))


def test_schedule_is_a_function_of_its_arguments() -> None:
    """Asked twice it is the same; with another seed it is another."""
    once, again, other = (rounds_of(seed=seed, images=400, batch_size=1, slice_steps=1) for seed in (1, 1, 2))
    assert once == again
    assert once != other


def test_orders_are_shuffled_without_favour() -> None:
    """In 600 rounds of three backends each of the six orders comes in 100, give or take five standard deviations."""
    (rounds,) = rounds_of(NAMES[:3], images=600, batch_size=1, slice_steps=1)
    seen = Counter(slice_.backends for slice_ in rounds)
    assert seen.keys() == set(permutations(NAMES[:3]))
    five_deviations = 5 * (300 * 1 / 3 * 2 / 3) ** 0.5  # a pair of rounds counts for two orders
    assert all(abs(count - 100) < five_deviations for count in seen.values())


def test_pairs_are_shuffled_anew() -> None:
    """The order of one pair is not that of the next, within an epoch and from one epoch to the other."""
    by_epoch = rounds_of(epochs=2, images=40, batch_size=1, slice_steps=1)
    firsts = [slice_.backends for epoch in by_epoch for slice_ in epoch[::2]]
    assert len(set(firsts)) > 0.9 * len(firsts)


def test_slices_of_the_notebook() -> None:
    """MNIST's 4,000 steps in slices of 500: eight rounds of 7,500 images."""
    (rounds,) = rounds_of(images=60_000, batch_size=15, slice_steps=500)
    assert [(slice_.start, slice_.stop) for slice_ in rounds] == [(n * 7500, (n + 1) * 7500) for n in range(8)]


@given(images=st.integers(0, 10_000), batch_size=st.integers(1, 200))
def test_steps_count_a_short_last_batch(images: int, batch_size: int) -> None:
    """As many as there are batches."""
    assert steps(images, batch_size) == len(range(0, images, batch_size))
