"""Self-play: pools of fakes, fine-tuning, selection, publication."""
