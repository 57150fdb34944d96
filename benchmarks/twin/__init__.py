"""The twin beside the archive it imitates: every published figure, and what the twin has."""
