"""The ladder of shapes: few lengths, little padding, and `shortest` its inverse."""

import pytest

from gateway.engine.shape_buckets import MAX_FINE_LENGTH, Shapes

LADDER = Shapes(length_step=8, is_ladder=True, max_length=8190)


def test_up_to_512_tokens_lengths_are_multiples_of_8_and_above_there_are_64_up_to_8192():
    lengths = {LADDER.length(num_tokens) for num_tokens in range(1, 8191)}
    assert {length for length in lengths if length <= MAX_FINE_LENGTH} == set(range(8, 513, 8))
    assert len([length for length in lengths if length > MAX_FINE_LENGTH]) == 64


@pytest.mark.parametrize("shapes", [LADDER, Shapes(length_step=8), Shapes(length_step=8, is_ladder=True, max_length=8192)])
def test_each_length_is_padded_by_a_16th_at_most_and_shortest_is_the_first_of_its_length(shapes):
    for num_tokens in range(513, 8191):
        length = shapes.length(num_tokens)
        assert num_tokens <= length <= min(num_tokens * 17 / 16, shapes.max_length)
        assert shapes.shortest(length) <= num_tokens
        assert shapes.length(shapes.shortest(length)) == length
        assert shapes.length(shapes.shortest(length) - 1) < length


def test_a_window_longer_than_the_model_reads_is_not_padded():
    assert LADDER.length(8191) == LADDER.shortest(8191) == 8191
