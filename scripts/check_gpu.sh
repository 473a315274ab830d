#!/usr/bin/env bash
# Does everything work on this machine's GPU, and how fast? At most eight minutes; writes one JSON file.
#
#     scripts/check_gpu.sh [FILE]
#
# Without a GPU that torch sees, one line and exit code 2. What is run is in check_gpu.py.
exec timeout --kill-after=5 475 "${PYTHON:-python}" "$(dirname "$0")/check_gpu.py" "$@"
