# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# Usage: source tools/env.sh        in bash or zsh; in other shells: cd CLONE && . tools/env.sh
#
# Puts eb, easysif and module of this clone into the shell, where tools/quickstart has run once. Modules are installed
# below EASYSIF_PREFIX, by default .easysif in the clone. Sourcing it again changes nothing.

_easysif_env() {
  # Lmod's own files do not run under set -eu. What is set here ends with this function.
  if [ -n "${ZSH_VERSION:-}" ]; then setopt local_options; else local -; fi
  set +eu

  local clone prefix lmod directory shell=sh wrong='' hint=''
  if [ -n "$BASH_VERSION" ]; then
    # shellcheck disable=SC2128  # with an index, other shells could not read this line
    clone=$BASH_SOURCE shell=bash
  elif [ -n "$ZSH_VERSION" ]; then
    eval 'clone=${(%):-%x}' && shell=zsh
  else
    clone=tools/env.sh  # other shells do not tell where a sourced file is
  fi
  clone=$(CDPATH='' cd -- "$(dirname -- "$clone")/.." && pwd -P)
  prefix=${EASYSIF_PREFIX:-$clone/.easysif}
  case $prefix in /*) ;; *) prefix=$PWD/$prefix ;; esac
  for directory in "${LMOD_CMD%/libexec/lmod}" /usr/share/lmod/lmod; do
    if [ -r "$directory/init/$shell" ]; then lmod=$directory/init/$shell && break; fi
  done

  case $prefix in
    *[:,\;\&\|\<\>\(\)\'\"\`\\#%*?[[:cntrl:]]* | *'{{'*)
      wrong="$prefix: a prefix cannot hold : , ; & | < > ( ) ' \" \` \\ # % * ? [ {{ or control characters"
      hint='set EASYSIF_PREFIX to another directory' ;;
  esac
  case $clone in
    *[:*?[]*) wrong="$clone: a clone cannot lie below a directory with : * ? or [, which EasyBuild cannot search"
      hint='move the clone' ;;
  esac
  if [ ! -f "$clone/tools/env.sh" ]; then
    wrong='this shell does not tell where the clone is' hint='cd to it, then: . tools/env.sh'
  elif [ -z "$wrong" ] && [ ! -e "$prefix/python/stamp" ]; then
    wrong="$prefix: nothing is set up here" hint="run $clone/tools/quickstart, or set EASYSIF_PREFIX"
  elif [ -z "$wrong$lmod" ]; then
    wrong='Lmod is not installed' hint="run $clone/tools/quickstart, which says how to get it"
  fi
  if [ -n "$wrong" ]; then
    printf 'error: env.sh: %s\nhint: %s\n' "$wrong" "$hint" >&2
    return 1
  fi

  for directory in "$prefix/runtime/bin" "$clone/tools/bin"; do
    case ":$PATH:" in *":$directory:"*) ;; *) export PATH="$directory:$PATH" ;; esac
  done
  for directory in "$clone/tools" "$clone"; do
    case ":$PYTHONPATH:" in
      *":$directory:"*) ;;
      *) export PYTHONPATH="$directory${PYTHONPATH:+:$PYTHONPATH}" ;;
    esac
  done

  # A profile that this file set for another prefix is not the user's choice.
  if [ "$EASYSIF_SITE" = "$EASYBUILD_PREFIX/site.yaml" ]; then unset EASYSIF_SITE; fi
  if [ -z "$EASYSIF_SITE" ] && [ -f "$prefix/site.yaml" ]; then export EASYSIF_SITE="$prefix/site.yaml"; fi
  # The settings of another EasyBuild by which modules would end elsewhere.
  unset EASYBUILD_CONFIGFILES EASYBUILD_INSTALLPATH EASYBUILD_INSTALLPATH_MODULES EASYBUILD_INSTALLPATH_SOFTWARE \
    EASYBUILD_SUBDIR_MODULES EASYBUILD_SUBDIR_SOFTWARE EASYBUILD_SUFFIX_MODULES_PATH EASYBUILD_MODULE_NAMING_SCHEME
  export EASYBUILD_PREFIX="$prefix" EASYBUILD_MODULES_TOOL=Lmod
  export EB_PYTHON="$prefix/python/bin/python"
  if [ "$(id -u)" = 0 ]; then
    # EasyBuild refuses root, who has no other account on a fresh machine or in a container. There root often lacks
    # the capability to mount, which a user namespace gives.
    export EASYBUILD_ALLOW_USE_AS_ROOT_AND_ACCEPT_CONSEQUENCES=1 APPTAINER_USERNS=1
  fi

  # Where another module system took the name, Lmod takes it back: it reads what eb writes.
  # shellcheck source=/dev/null
  if [ -z "$LMOD_CMD" ] || ! command -v module >/dev/null; then . "$lmod"; fi
  case ":$MODULEPATH:" in *":$prefix/modules/all:"*) ;; *) module use "$prefix/modules/all" ;; esac
}

if _easysif_env; then
  unset -f _easysif_env
else
  unset -f _easysif_env
  return 1
fi
