from studies import merges, toy

from search.study import Proposer


def test_draws_are_uniform_whatever_was_told():
    compiled = merges("task_arithmetic")
    proposer = Proposer(compiled, "random", study_name="job_1", seed=8)
    drawn = []
    for _ in range(300):
        proposal = proposer.ask()
        drawn += [value / 1.5 for value in proposal.values.values()]
        proposer.tell_scored(proposal.number, toy(proposal.values), items=10)
    # Kolmogorov-Smirnov distance of 900 draws from the uniform law; 1.63 / sqrt(n) is the 1 % point.
    drawn.sort()
    distance = max(abs((i + 0.5) / len(drawn) - value) for i, value in enumerate(drawn))
    assert distance < 1.63 / len(drawn) ** 0.5
