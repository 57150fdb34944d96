"""A mock of PBS for the tests."""
