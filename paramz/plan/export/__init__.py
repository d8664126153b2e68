"""A plan as the settings of frameworks that people train in, one file per framework."""
