"""The subcommands of `mutual-env`: one file each, with `add_arguments(parser)` and `run(args) -> exit code`."""
