"""The engine on CPUs: blocks of columns, compiled loops over time, many threads."""
