# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# Usage: . tools/setup/common.sh
#
# What tools/quickstart and the scripts beside this file share. Each of those scripts does one part of the set-up,
# can be run on its own, does nothing when that part is there, and prints what it found or made as its last line.

# Usage: fail EXIT_CODE WHERE WHAT [LABEL VALUE]… [hint TEXT]
# End with a message in the form of every error of EasySIF.
fail() {
  local exit_code=$1
  printf 'error: %s: %s\n' "$2" "$3" >&2
  shift 3
  while (($# > 1)); do
    if [[ $1 == hint ]]; then printf 'hint: %s\n' "$2" >&2; else printf '  %-16s  %s\n' "$1" "$2" >&2; fi
    shift 2
  done
  exit "$exit_code"
}

# Usage: own WHERE DIRECTORY HINT
# Make a directory with a mark that says that the set-up may replace what it holds. Where a directory holds something
# and has no mark, it is somebody else's: end.
own() {
  local mark=$2/.made-by-easysif content
  if [[ -e $2 && ! -e $mark ]] && { ! content=$(ls -A "$2") || [[ $content ]]; }; then
    fail 1 "$1" 'this directory is not empty, and EasySIF did not make it' directory "$2" hint "$3"
  fi
  { mkdir -p "$2" && : >>"$mark"; } || fail 1 "$1" 'no directory for the set-up' directory "$2" hint "$3"
}

# Usage: own_part WHERE DIRECTORY
# The same for a directory of a single part.
own_part() {
  own "$1" "$2" "mv ${2@Q} ${2@Q}.old"
}

# Usage: empty DIRECTORY
# Remove what a directory holds but its mark: should this be interrupted, it is still known as ours.
empty() {
  find "$1/" -mindepth 1 -maxdepth 1 ! -name .made-by-easysif -exec rm -rf {} +
}

# Usage: have COMMAND…
# Whether all these commands are there.
have() {
  local name
  for name; do command -v "$name" >/dev/null || return; done
}

# Usage: at_least VERSION WANTED
at_least() {
  [[ $(printf '%s\n' "$1" "$2" | sort -V | head -n 1) == "$2" ]]
}

# Usage: installed_runtime [IGNORED_DIRECTORY]
# Print the path of a container runtime on PATH that is new enough, outside IGNORED_DIRECTORY: Apptainer 1.1 brought
# what EasySIF builds on, SingularityCE has it since 3.9. Status 1 where there is none.
installed_runtime() {
  local path version
  while read -r path; do
    [[ ${path%/*} != "${1:-}" ]] || continue
    version=$("$path" --version 2>/dev/null) || continue
    case $version in
      'apptainer version '*) at_least "${version##* }" 1.1 || continue ;;
      'singularity-ce version '*) at_least "${version##* }" 3.9 || continue ;;
      *) continue ;;
    esac
    printf '%s\n' "$path"
    return
  done < <(type -aP apptainer singularity)
  return 1
}

# Usage: debian_sources
# Print "URI SUITE" for each suite of Debian proper that this machine's apt reads; status 1 where there is none.
# apt itself is asked: it knows .list and .sources files, mirror lists and disabled entries.
debian_sources() {
  local id codename option targets
  have apt-get dpkg && [[ -r /etc/os-release ]] || return
  # shellcheck source=/dev/null
  read -r id codename < <(. /etc/os-release && printf '%s %s\n' "$ID" "${VERSION_CODENAME:-sid}")
  [[ $id == debian ]] || return
  # The second way works before the first apt-get update, but tells no origin.
  for option in --release-info --no-release-info; do
    # shellcheck disable=SC2016
    targets=$(apt-get indextargets "$option" --format '$(COMPONENT) $(ORIGIN) $(REPO_URI) $(RELEASE)' \
      'Created-By: Packages')
    [[ -z $targets ]] || break
  done
  codename="($codename|(old)?stable|testing|unstable|sid)([-/](security|updates))?"
  grep -E "^main (Debian|\\$\(ORIGIN\)) [^ ]+ $codename$" <<<"$targets" | cut -d ' ' -f 3,4 | sort -u -k 2
}

# Usage: sources_line URI SUITE
# Print a line for sources.list, trusting Debian's own key and no other.
sources_line() {
  local keyring=/usr/share/keyrings/debian-archive-keyring.gpg option=
  [[ ! -e $keyring ]] || option="[signed-by=$keyring] "
  printf 'deb %s%s %s main\n' "$option" "$1" "$2"
}

# Usage: acquire_settings
# Print the settings by which this machine's apt reaches its sources (proxies, certificates), without its hooks.
acquire_settings() {
  apt-config dump | grep '^Acquire::' | grep -v '^Acquire::IndexTargets'
}
