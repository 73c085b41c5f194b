"""What `controlplane demo` starts and shows; `controlplane/cli/demo.py` is the command."""
