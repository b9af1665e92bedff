# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=sh
#
# Usage: . /opt/miniconda3/bin/activate NAME

# shellcheck source=/dev/null
. /opt/miniconda3/etc/profile.d/conda.sh
conda activate "$@"
