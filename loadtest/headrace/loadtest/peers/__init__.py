"""What a user would pick instead of Headrace, measured beside it: `make bench-peers`."""
