#!/usr/bin/env bash
# Checks the program on one GPU, see check.py. Wheels that the machine lacks may lie in a folder, which is given.
#     tests/gpu/check.sh OUT.json [WHEELS] [--option of check.py ...]
set -euo pipefail
cd "$(dirname "$0")/../.."
out=$1
shift
if (($#)) && [[ -d $1 ]]; then
    pip install -q --no-index --find-links "$1" "$1"/*.whl
    shift
fi
exec python tests/gpu/check.py "$out" "$@"
