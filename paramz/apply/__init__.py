"""Plans put on models: `parametrize_` and its inverse, checkpoints, schedules, Hugging Face."""
