"""Measurements that need the repository; see README.md."""
