"""What every protocol runs on: settings, encoders, tables, charts."""
