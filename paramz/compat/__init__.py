"""Drop-in modules: code written for other packages of the field runs on paramz by its import."""
