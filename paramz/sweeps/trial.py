"""What a training function receives: its trial."""
