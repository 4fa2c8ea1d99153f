"""Plots inside a page, as SVG: no script, no other file, readable without colour, and with their numbers as a table."""
