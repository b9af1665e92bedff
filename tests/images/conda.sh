# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=sh
#
# Usage: . /opt/miniconda3/etc/profile.d/conda.sh; conda activate NAME
#
# The part of conda's own shell code that its users meet, for the stand-in image: `conda activate` sets PATH and
# CONDA_* and reads the environment's activate.d, `conda deactivate` takes the environment from PATH again.

export CONDA_EXE=/opt/miniconda3/bin/conda
export CONDA_SHLVL="${CONDA_SHLVL:-0}"

conda() {
  case "$1" in
    activate)
      CONDA_DEFAULT_ENV=${2:-base}
      case $CONDA_DEFAULT_ENV in
        base) CONDA_PREFIX=/opt/miniconda3 ;;
        */*) CONDA_PREFIX=$CONDA_DEFAULT_ENV ;;
        *) CONDA_PREFIX=/opt/miniconda3/envs/$CONDA_DEFAULT_ENV ;;
      esac
      if ! [ -d "$CONDA_PREFIX/conda-meta" ]; then
        echo "EnvironmentNameNotFound: Could not find conda environment: $CONDA_DEFAULT_ENV" >&2
        unset CONDA_DEFAULT_ENV CONDA_PREFIX
        return 1
      fi
      PATH=$CONDA_PREFIX/bin:$PATH
      CONDA_SHLVL=$((CONDA_SHLVL + 1))
      export PATH CONDA_PREFIX CONDA_DEFAULT_ENV CONDA_SHLVL
      for _conda_script in "$CONDA_PREFIX"/etc/conda/activate.d/*.sh; do
        # shellcheck source=/dev/null
        [ ! -e "$_conda_script" ] || . "$_conda_script"
      done
      unset _conda_script
      ;;
    deactivate)
      PATH=${PATH#"$CONDA_PREFIX/bin:"}
      CONDA_SHLVL=$((CONDA_SHLVL - 1))
      unset CONDA_PREFIX CONDA_DEFAULT_ENV
      ;;
    *)
      echo "conda: this stand-in knows activate and deactivate only, not: $1" >&2
      return 2
      ;;
  esac
}
