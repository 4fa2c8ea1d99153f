"""The pages of jobs and of what they change: updates, history, clusters."""
