"""Readers and writers of motion files: one file format each, arrays in and out, no dataset knowledge."""
