"""The service: a process that answers, admits ignorance, asks, learns, proves and undoes."""
