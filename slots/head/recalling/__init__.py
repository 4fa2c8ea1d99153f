"""Answers and new slots where what is remembered guesses: the guess, and the slots behind it."""
