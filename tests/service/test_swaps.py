"""While generations change under load, each answer is that of the generation it names, to the last bit."""

import pytest
from support.swapping import asked_under_swaps

pytestmark = pytest.mark.slow


def test_a_thousand_answers_under_swaps_are_those_of_the_generations_they_name(own, tmp_path):
    found = asked_under_swaps(own, tmp_path / "data", 1000, clients=24, swaps=20, seconds=0.2)
    assert found.wrong == []
    assert found.statuses == {"200": found.requests}
    assert sum(found.answers.values()) == 1000
    assert len(found.answers) >= 3, found.answers
