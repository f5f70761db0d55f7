"""What a search job does in each of its states; `workers.steps.advance` picks the phase."""
