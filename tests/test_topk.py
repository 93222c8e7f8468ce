import pytest
import torch

from widedeep.topk import first_rank, top_k


def _tied_scores(rows: int, columns: int, levels: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randint(levels, (rows, columns), generator=generator).float()
    scores[torch.rand(rows, columns, generator=generator) < 0.1] = -torch.inf
    return scores


@pytest.mark.parametrize("levels", [1, 2, 10, 10_000])
@pytest.mark.parametrize("k", [1, 7, 40, 60])
def test_top_k_is_a_stable_sort(levels, k):
    scores = _tied_scores(50, 40, levels, seed=levels)
    values, columns = top_k(scores, k)
    expected = scores.sort(dim=1, descending=True, stable=True)
    assert torch.equal(columns, expected.indices[:, :k])
    assert torch.equal(values, expected.values[:, :k])


@pytest.mark.parametrize("levels", [1, 3, 10_000])
def test_first_rank_is_the_place_in_a_stable_sort(levels):
    scores = _tied_scores(50, 40, levels, seed=7)
    marked = torch.rand(50, 40, generator=torch.Generator().manual_seed(8)) < 0.1
    marked[0] = False  # nothing to look for
    marked[1] = scores[1] == -torch.inf  # nothing of it can be had
    order = scores.sort(dim=1, descending=True, stable=True).indices
    expected = []
    for row in range(50):
        places = [
            place
            for place, column in enumerate(order[row].tolist(), 1)
            if marked[row, column] and scores[row, column] > -torch.inf
        ]
        expected.append(min(places, default=0))
    assert 0 in expected
    rows, columns = marked.nonzero(as_tuple=True)
    assert first_rank(scores, rows, columns).tolist() == expected


def test_k_below_one_is_refused():
    with pytest.raises(ValueError, match="k must be 1 or more"):
        top_k(torch.zeros(1, 3), 0)
