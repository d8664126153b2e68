"""Makes `umup_models`, the models of these tests, importable."""
