"""Search: proposes values for a recipe's holes, decides who goes on in the race, and ranks who is to be proved.

`study.Proposer` is the door to Optuna; `racing`, `finalists`, `plan` and `auto` are pure.
"""
