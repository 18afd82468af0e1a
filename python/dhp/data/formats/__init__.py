"""Data files of all kinds as rows, and rows as samples."""
