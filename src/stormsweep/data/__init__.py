"""Prepared data on disk, folds and balance; nothing about storms."""
