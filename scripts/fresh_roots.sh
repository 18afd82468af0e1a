#!/usr/bin/env bash
# The README's two commands to the letter on fresh machines: for each release a root folder with nothing but python3, g++,
# cmake, make and git, a clone of what is committed here, `make demo` and `make test`. Ends with a table; logs stay in FOLDER.
#   fresh_roots.sh [RELEASE...]     by default bookworm (Debian 12), trixie (Debian 13) and noble (Ubuntu 24.04)
# Needs root, mmdebstrap, and 8 GB a root at a time with torch's CUDA build. Of the environment:
#   COMMANDS        "demo test"
#   TORCH           what both are given as TORCH; empty: nothing, as in the README
#   DHP_TEST_SHARE  the share of random cases, as in CONTRIBUTING.md
#   WHEELS          a folder of wheels that pip in the roots takes too
#   UBUNTU_MIRROR   where packages of Ubuntu come from; those of Debian come from where this machine has them from
#   FOLDER          build/fresh
#   KEEP            not empty: roots stay, to look into
set -euo pipefail
cd "$(dirname "$0")/.."
commands=${COMMANDS:-demo test} torch=${TORCH:-} wheels=${WHEELS:-}
folder=$(realpath -m "${FOLDER:-build/fresh}")
releases=("$@")
[ $# != 0 ] || releases=(bookworm trixie noble)
[ "$(id -u)" = 0 ] || { echo "fresh_roots: needs root" >&2; exit 1; }
command -v mmdebstrap >/dev/null || { echo "fresh_roots: please install mmdebstrap" >&2; exit 1; }
[ -z "$(git status --porcelain)" ] || echo "fresh_roots: what is not committed is not tried"
mkdir -p "$folder"
rows=() failed=0 child="" root=""

# Mounts are made in a mount namespace of the commands' own and go with it. All the same, nothing is removed through one.
remove_root() {
  [ -d "$root" ] && [ -z "${KEEP:-}" ] || return 0
  if grep -q " $root/" /proc/mounts; then
    echo "fresh_roots: $root has mounts and stays" >&2
  else
    rm -rf --one-file-system "$root"
  fi
}
trap '[ -z "$child" ] || { kill "$child" && wait "$child"; } 2>/dev/null; remove_root' EXIT
trap 'exit 130' INT TERM

mirror_of() {
  case $1 in
    bookworm | trixie)
      { cat /etc/apt/sources.list /etc/apt/sources.list.d/*.sources || true; } 2>/dev/null |
        grep -oE '^(URIs:|deb) .*[a-z]+://[^ ]*debian/?( |$)' | grep -oE '[a-z]+://[^ ]*' | sed -n 1p ;;
    *) echo "${UBUNTU_MIRROR:-}" ;;
  esac
}

# RELEASE MIRROR: also what package indexes need here: names, certificates, pip's settings.
make_root() {
  unshare --mount --propagation private mmdebstrap --quiet --variant=apt \
    --include=python3,g++,cmake,make,git,ca-certificates "$1" "$root" "$2" || return 1
  cp -L /etc/resolv.conf /etc/hosts "$root"/etc/
  cp -L /etc/ssl/certs/ca-certificates.crt "$root"/etc/ssl/certs/
  for path in /etc/pip.conf /etc/xdg/pip; do
    [ ! -e $path ] || { mkdir -p "$root${path%/*}" && cp -rL $path "$root$path"; }
  done
  [ -z "$wheels" ] || cp -rL "$wheels" "$root"/wheels
  git clone -q --no-hardlinks . "$root"/root/dhp
}

# COMMAND...: in the root, as on a machine that was just set up.
inside() {
  local variables=(HOME=/root USER=root LANG=C.UTF-8 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin)
  mapfile -t -O ${#variables[@]} variables < <(
    env | grep -iE '^(https?_proxy|no_proxy|pip_cert|pip_index_url|ssl_cert_file|dhp_test_share)=' || true)
  [ -z "$wheels" ] || variables+=(PIP_FIND_LINKS=/wheels)
  # shellcheck disable=SC2016 # expanded inside
  unshare --mount --pid --fork --kill-child --propagation private bash -c '
    mount -t proc proc "$0"/proc && mount --rbind /sys "$0"/sys && mount --rbind /dev "$0"/dev || exit 1
    exec chroot "$0" env -i --chdir=/root/dhp "$@"' "$root" "${variables[@]}" "$@" &
  child=$!
  local status=0
  wait "$child" || status=$?
  child=""
  return $status
}

# RELEASE COMMAND RESULT SECONDS DETAIL
row() {
  rows+=("$(printf '%-9s %-6s %-10s %4d min  %s' "$1" "$2" "$3" $(($4 / 60)) "$5")")
  echo "${rows[-1]}"
}

try() {
  local release=$1 mirror command log start arguments
  mirror=$(mirror_of "$release" || true)
  [ -n "$mirror" ] || { row "$release" - "not tried" 0 "no mirror of its packages is named"; return; }
  root=$folder/$release-root
  KEEP='' remove_root
  start=$SECONDS
  log=$folder/$release-root.log
  make_root "$release" "$mirror" >"$log" 2>&1 ||
    { row "$release" - "not tried" $((SECONDS - start)) "no root: $(grep -m1 '^E: ' "$log" || tail -1 "$log")"; failed=1; remove_root; return; }
  for command in $commands; do
    arguments=("$command")
    [ -z "$torch" ] || arguments+=("TORCH=$torch")
    start=$SECONDS
    log=$folder/$release-$command.log
    if inside make "${arguments[@]}" >"$log" 2>&1 </dev/null; then
      row "$release" "$command" passed $((SECONDS - start)) "$(tail -1 "$log")"
    else
      failed=1
      row "$release" "$command" FAILED $((SECONDS - start)) "$(grep -m1 -E 'rror' "$log" || tail -1 "$log")"
    fi
  done
  inside sh -c 'python3 -V; c++ --version | head -1; build/venv/bin/python -c "import torch; print(\"torch\", torch.__version__)"' |
    paste -sd' ' >"$folder/$release-versions.log" || true
  remove_root
}

for release in "${releases[@]}"; do
  try "$release"
done
echo
for release in "${releases[@]}"; do
  [ ! -f "$folder/$release-versions.log" ] || echo "$release: $(cat "$folder/$release-versions.log")"
done
printf '%s\n' "${rows[@]}"
exit $failed
