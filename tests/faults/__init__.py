"""When things go wrong: every row of docs/reliability.md, small in `make test`, at full size in `make faults`."""
